"""Workers that have grown too large are replaced, one at a time, without a lost request.

Native code may lose memory that nobody can give back but the end of its process. Another worker starts first; once it
serves, the old one is told to leave: it stops accepting at once, and what it has begun it ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gateway import ends, memory
from gateway.node import LEAVE_AT_ONCE
from gateway.supervision.children import Child, Process

LOOK = 1.0  # seconds between two looks at the memory
PAUSE = 60.0  # seconds in which no second worker of a node is replaced, or one that is full at once would never serve


@dataclass(slots=True)
class Leaving:
    """A worker whose place another has."""

    process: Process
    spool: int
    successor: Child
    deadline: float = math.inf  # once it was told to leave


@dataclass(slots=True)
class Recycling:
    """Who leaves for their memory."""

    leaving: list[Leaving] = field(default_factory=list)
    _look_at: float = 0.0
    _not_before: float = 0.0

    def due(self, workers: Sequence[Child], limit: int, now: float) -> Child | None:
        """The largest of the workers beyond `limit` bytes, if one may leave now."""
        if now < self._look_at or now < self._not_before or self.leaving:
            return None
        self._look_at = now + LOOK
        largest = max(workers, key=_resident)
        return largest if _resident(largest) > limit else None

    def replace(self, worker: Child, now: float) -> None:
        """Its place is free for another. Until that one serves, it does, however long that takes."""
        assert worker.process is not None
        self.leaving.append(Leaving(worker.process, worker.spool, worker))
        worker.process = None
        self._not_before = now + PAUSE

    def dismiss(self, serves: Callable[[Child], bool], within: float, now: float) -> None:
        """Tell those to leave whose successors serve, and kill who has not left `within` seconds after that."""
        for one in self.leaving:
            if now >= one.deadline:
                one.process.kill()
            elif one.deadline == math.inf and serves(one.successor):
                one.process.send_signal(LEAVE_AT_ONCE)
                one.deadline = now + within

    def ended(self) -> dict[int, str]:
        """How those ended that have left since the last time, by spool."""
        gone = [one for one in self.leaving if one.process.poll() is not None]
        self.leaving = [one for one in self.leaving if one not in gone]
        return {one.spool: ends.MEMORY if (code := one.process.wait()) == 0 else ends.word(code) for one in gone}


def _resident(worker: Child) -> int:
    """Bytes in memory, 0 for a process that is not there."""
    if worker.process is None:
        return 0
    try:
        return memory.resident(worker.process.pid)
    except (OSError, IndexError):
        return 0
