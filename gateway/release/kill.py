"""The kill rule: a challenger that fails plainly is stopped at request level, without statistics (rule R7).

It reads running counts, not the store, so it works while the store is away.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

Counts: TypeAlias = tuple[int, int]  # requests, errors

LAST = 50  # challenger requests looked back upon
FEWEST = 5
SHARE = 0.2
TIMES = 5.0


class KillRules:
    """The rule for each challenger of one experiment. Asking it is a look, so it is asked once in a round."""

    def __init__(self) -> None:
        self._rules: dict[str, KillRule] = {}

    def look(self, champion: Counts, challengers: Mapping[str, Counts]) -> dict[str, str]:
        """By challenger that must stop: why."""
        looks = {
            name: self._rules.setdefault(name, KillRule()).observe(champion, counts)
            for name, counts in challengers.items()
        }
        return {name: why for name, why in looks.items() if why}


@dataclass(slots=True)
class KillRule:
    """Watches one challenger. Feed it totals that never fall; it keeps what lies within the last 50 requests."""

    _window: deque[tuple[int, int]] = field(default_factory=deque)  # (requests, errors) of the challenger
    _challenger: tuple[int, int] | None = None

    def observe(self, champion: tuple[int, int], challenger: tuple[int, int]) -> str:
        """Take (requests, errors) of both variants; returns why the challenger must stop, or ""."""
        before, self._challenger = self._challenger, challenger
        if before is None:
            # A restart in mid-experiment: many requests are not "the last", a few are.
            before = (0, 0) if challenger[0] <= LAST else challenger
        elif challenger[0] < before[0]:
            self._window.clear()  # the counts were lost, so what they say begins anew
            before = challenger
        requests, errors = challenger[0] - before[0], challenger[1] - before[1]
        if requests:
            self._window.append((requests, errors))
        # Within one look nobody knows the order, so a look with more than 50 requests is judged as a whole.
        while len(self._window) > 1 and sum(n for n, _ in self._window) - self._window[0][0] >= LAST:
            self._window.popleft()
        seen, failed = sum(n for n, _ in self._window), sum(n for _, n in self._window)
        champion_share = champion[1] / champion[0] if champion[0] else 0.0
        if failed >= max(FEWEST, SHARE * seen) and failed / seen >= TIMES * champion_share:
            return f"{failed} of the challenger's last {seen} requests failed"
        return ""
