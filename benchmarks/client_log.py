"""What clients know for certain of a gateway, and what they tried: held against its store by `accounts`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Key(NamedTuple):
    """What makes an outcome the same as another."""

    decision: int
    metric: str
    id: str


class Answered(NamedTuple):
    user: int
    prediction: bytes  # as it was answered: it tells the models apart
    sent: float  # time.monotonic
    came: float


@dataclass(slots=True)
class Log:
    """What clients know for certain, and what they tried."""

    answered: dict[int, Answered] = field(default_factory=dict)  # by decision
    asked: Counter[int] = field(default_factory=Counter)  # requests that were sent, by user
    tried: dict[Key, set[float]] = field(default_factory=dict)  # every value that was ever sent
    acknowledged: dict[Key, float] = field(default_factory=dict)  # the first value that was
    failed: Counter[str] = field(default_factory=Counter)  # requests without a good answer, by what came instead
    repeated: Counter[str] = field(default_factory=Counter)  # posted again: `unsure`, `duplicate`, `conflict`
    slowest: float = 0.0  # seconds that an answer took

    @property
    def summary(self) -> dict[str, Any]:
        return {
            "asked": sum(self.asked.values()),
            "answered": len(self.answered),
            "failed": dict(self.failed),
            "outcomes": len(self.tried),
            "acknowledged": len(self.acknowledged),
            "repeated": dict(self.repeated),
            "slowest_ms": round(1e3 * self.slowest, 1),
        }


class Post(NamedTuple):
    """One outcome on its way."""

    token: str
    key: Key
    value: float
    tries: int = 1


class Refused(Exception):
    """An answer that is not 200."""
