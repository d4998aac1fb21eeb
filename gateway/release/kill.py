"""The kill rule: a challenger that fails plainly is stopped at request level, without statistics (rule R7).

It reads running counts, not the store, so it works while the store is away.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

LAST = 50  # challenger requests looked back upon
FEWEST = 5
SHARE = 0.2
TIMES = 5.0


@dataclass(slots=True)
class KillRule:
    """Watches one experiment. Feed it totals that never fall; it keeps what lies within the last 50 requests."""

    _window: deque[tuple[int, int]] = field(default_factory=deque)  # (requests, errors) of the challenger
    _challenger: tuple[int, int] | None = None

    def observe(self, champion: tuple[int, int], challenger: tuple[int, int]) -> str:
        """Take (requests, errors) of both variants; returns why the challenger must stop, or ""."""
        first_look = self._challenger is None
        before = self._challenger or (0, 0)
        self._challenger = challenger
        if first_look and challenger[0] > LAST:
            return ""  # a restart in mid-experiment: older requests are not "the last"
        requests, errors = challenger[0] - before[0], challenger[1] - before[1]
        if requests:
            self._window.append((requests, errors))
        while len(self._window) > 1 and sum(n for n, _ in self._window) - self._window[0][0] >= LAST:
            self._window.popleft()
        seen, failed = (sum(column) for column in zip(*self._window, strict=True)) if self._window else (0, 0)
        needed = max(FEWEST, SHARE * seen)
        champion_share = champion[1] / champion[0] if champion[0] else 0.0
        if failed >= needed and failed / seen >= TIMES * champion_share:
            return f"{failed} of the challenger's last {seen} requests failed"
        return ""
