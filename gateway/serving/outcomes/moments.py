"""When an outcome happened, as its sender says: ISO 8601 with a zone, or seconds since the epoch.

It is kept beside the outcome; windows go by when it arrived, for that nobody can choose. So only what cannot be is
refused: clocks of clients and servers differ, by minutes at most.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from gateway.errors import ValueRejected

TOLERANCE_US = 300 * 1_000_000
_EXPECTED = '`at` must be a time with its zone such as "2026-03-01T12:00:00Z", or seconds since 1970'
_MILLISECONDS = 1e11  # as seconds this is the year 5138: whoever says more counts in something else
_LONGEST = 64  # characters


def happened(at: Any, now: int, exposed_at: int = 0) -> int:
    """Microseconds since the epoch; raises ValueRejected if it is no time, is still to come, or lies before the
    exposure (where that is known), both beyond the tolerance."""
    if at is None:
        return 0
    seconds = _seconds(at)
    if not 0 < seconds < _MILLISECONDS:
        hint = ": is it in milliseconds?" if seconds >= _MILLISECONDS else ""
        raise ValueRejected(f"{_EXPECTED}, not {_shown(at)}{hint}")
    moment = max(1, round(seconds * 1e6))
    if moment > now + TOLERANCE_US:
        raise ValueRejected(f"`at` lies {_minutes(moment - now)} ahead of the gateway's clock: {_shown(at)}")
    if moment < exposed_at - TOLERANCE_US:
        raise ValueRejected(f"`at` lies {_minutes(exposed_at - moment)} before the decision: {_shown(at)}")
    return moment


def _seconds(at: Any) -> float:
    if isinstance(at, (int, float)) and not isinstance(at, bool):
        return at
    if isinstance(at, str) and len(at) <= _LONGEST:
        try:
            moment = datetime.fromisoformat(at)
        except ValueError:
            moment = None
        if moment is not None and moment.tzinfo is not None:
            return moment.timestamp()
    raise ValueRejected(f"{_EXPECTED}, not {_shown(at)}")


def _minutes(microseconds: int) -> str:
    return f"{microseconds / 60e6:.1f} minutes"


def _shown(at: Any) -> str:
    text = repr(at)
    return text if len(text) <= 60 else f"{text[:57]}..."
