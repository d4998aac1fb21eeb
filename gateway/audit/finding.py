"""One thing that is not as it should be."""

from __future__ import annotations

from typing import Any

import msgspec


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What differs, and where. Names are "" and the step is 0 where they say nothing."""

    what: str  # a bounded word
    text: str
    step: int = 0
    experiment: str = ""
    challenger: str = ""
    metric: str = ""
    segment: str = ""
    expected: str = ""  # "" with `found` where there is nothing to compare
    found: str = ""

    def __str__(self) -> str:
        names = ("experiment", "challenger", "metric", "segment")
        place = [f"step {self.step}"] if self.step else []
        place += [f"{name} {value}" for name in names if (value := getattr(self, name))]
        where = f" ({', '.join(place)})" if place else ""
        values = f": expected {self.expected}, found {self.found}" if self.expected or self.found else ""
        return f"{self.what}: {self.text}{where}{values}"


def first_difference(expected: Any, found: Any, path: tuple[str, ...] = ()) -> tuple[tuple[str, ...], Any, Any] | None:
    """Where two plain documents first differ, depth first, with what is there; None if they are the same.

    What one of them does not have is None. Numbers are the same if their text is: NaN is NaN.
    """
    if isinstance(expected, dict) and isinstance(found, dict):
        pairs = [
            (str(key), expected.get(key), found.get(key)) for key in (*expected, *(found.keys() - expected.keys()))
        ]
    elif isinstance(expected, list) and isinstance(found, list):
        longest = max(len(expected), len(found))
        both = (one + [None] * (longest - len(one)) for one in (expected, found))
        pairs = [(str(place), one, other) for place, (one, other) in enumerate(zip(*both, strict=True))]
    else:
        return None if type(expected) is type(found) and repr(expected) == repr(found) else (path, expected, found)
    found_in = (first_difference(one, other, (*path, key)) for key, one, other in pairs)
    return next((difference for difference in found_in if difference), None)
