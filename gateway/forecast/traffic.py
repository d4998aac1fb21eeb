"""How many units come: `20000/day`, `800/h` or `2.5/s`."""

from __future__ import annotations

import re

DAY_US = 86_400_000_000
_SECONDS = {"s": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hour": 3600, "d": 86400, "day": 86400}
_SPELLING = re.compile(r"([0-9][0-9_,]*(?:\.[0-9]+)?)([kM]?)\s*/\s*([a-z]+)")


def per_day(text: str) -> float:
    """Units a day; raises ValueError with what was expected."""
    match = _SPELLING.fullmatch(text.strip())
    if match is None or match[3] not in _SECONDS:
        raise ValueError(f"expected units per time such as 20000/day, 800/hour or 2.5/s, found {text!r}")
    units = float(re.sub("[_,]", "", match[1])) * {"": 1, "k": 1_000, "M": 1_000_000}[match[2]]
    if not units > 0.0:
        raise ValueError("without any units there is nothing to forecast")
    return units * 86400 / _SECONDS[match[3]]
