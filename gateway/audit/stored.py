"""The votes that a store has, read in their order."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.store.auditing import Auditable
from gateway.store.base import Vote

_ROWS = 2_000  # at a time


@dataclass(slots=True)
class Stored:
    """Those of one experiment."""

    store: Auditable
    experiment: str
    after: int
    votes: list[Vote] = field(default_factory=list)

    def until(self, watermark: int) -> list[Vote]:
        """Those that come next and are older; of erased units those among them."""
        found: list[Vote] = []
        while True:
            if not self.votes:
                self.votes = self.store.votes(self.experiment, self.after, _ROWS)[::-1]
                if not self.votes:
                    return found
            if self.votes[-1].decision and self.votes[-1].at >= watermark:
                return found
            found.append(vote := self.votes.pop())
            self.after = vote.ordinal
