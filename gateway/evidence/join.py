"""Admission: assignments become votes, in the order of their coins.

Order is (time, decision id) over all spools, up to the watermark (rule R2). A unit votes at its first exposure
only; forced assignments and splits of 0 or 1 have no vote, because no coin was thrown.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from gateway.events import FORCED, SEQUENCE_BITS, Assignment, decision_id, spool_of
from gateway.evidence.cells import ASSIGNED, Evidence
from gateway.spool.reader import StreamId
from gateway.store.base import Claim, Store, StreamCursor, Vote

_DIGITS = 12  # the finest share that a config can name: 0.0000000001 %


@dataclass(slots=True)
class Admission:
    """Assignments that were shipped but lie beyond the watermark, and the number of votes."""

    pending: list[Assignment] = field(default_factory=list)
    ordinals: dict[str, int] = field(default_factory=dict)  # votes so far, by experiment

    @classmethod
    def restore(cls, store: Store, cursors: dict[StreamId, StreamCursor]) -> Admission:
        """What a restarted control process finds: rows behind each spool's admitted mark."""
        pending = [
            assignment
            for stream, cursor in cursors.items()
            if stream.stream == "requests"
            for assignment in _unadmitted(store, stream.spool, cursor.admitted)
        ]
        return cls(pending)

    def units(self, store: Store, experiment: str) -> int:
        """Votes admitted so far."""
        if experiment not in self.ordinals:
            self.ordinals[experiment] = store.vote_count(experiment)
        return self.ordinals[experiment]

    def admit(
        self,
        store: Store,
        fresh: list[Assignment],
        before: int,
        watermark: int,
        evidence: Mapping[str, Evidence],
    ) -> dict[int, int]:
        """Admit everything older than the watermark; returns the last decision admitted of each spool.

        Every stream is complete up to the watermark, so whatever comes later and is older than the one `before` was
        written by a spool that had been declared dead: late, counted, no vote.
        """
        due = self._due(fresh, watermark)
        late = Counter((fact.experiment, fact.variant) for fact in due if fact.at < before)
        for (experiment, variant), number in sorted(late.items()):
            store.count(experiment, variant, "late", number)
        self._vote(store, [fact for fact in due if fact.at >= before], evidence)
        marks: dict[int, int] = {}
        for fact in due:
            spool = spool_of(fact.decision)
            marks[spool] = max(marks.get(spool, 0), fact.decision)
        return marks

    def _due(self, fresh: list[Assignment], watermark: int) -> list[Assignment]:
        waiting = self.pending + fresh if self.pending else fresh
        self.pending = [fact for fact in waiting if fact.at >= watermark]
        due = [fact for fact in waiting if fact.at < watermark] if self.pending else waiting
        return sorted(due, key=lambda fact: (fact.at, fact.decision))

    def _vote(self, store: Store, facts: list[Assignment], evidence: Mapping[str, Evidence]) -> None:
        drawn = [
            (fact, pi)
            for fact in facts
            if fact.experiment in evidence and not fact.flags & FORCED
            if 0.0 < (pi := _propensity(fact, evidence[fact.experiment])) < 1.0
        ]
        claims = [Claim(fact.experiment, fact.bucket, fact.unit, fact.decision) for fact, _ in drawn]
        votes: dict[str, list[Vote]] = defaultdict(list)
        for (fact, pi), is_first in zip(drawn, store.claim_units(claims) if claims else (), strict=True):
            if is_first:
                number = self.ordinals[fact.experiment] = self.units(store, fact.experiment) + 1
                challenger = fact.variant == evidence[fact.experiment].definition.challenger
                votes[fact.experiment].append(
                    Vote(
                        fact.experiment,
                        number,
                        fact.decision,
                        fact.at,
                        fact.stage,
                        fact.variant,
                        challenger,
                        pi,
                        fact.segments,
                    )
                )
        for experiment, rows in votes.items():
            store.add_votes(rows)
            pis = np.array([row.pi for row in rows])
            evidence[experiment].fold_ratio(ASSIGNED, pis, np.array([row.challenger for row in rows]))


def _propensity(fact: Assignment, evidence: Evidence) -> float:
    """The probability of the challenger, the same number whichever side the coin fell on.

    One challenger and the champion share the whole hash space, so either share gives the other; rounding takes away
    what binary fractions add (1 - 0.99 is not 0.01).
    """
    pi = fact.pi if fact.variant == evidence.definition.challenger else 1.0 - fact.pi
    return round(pi, _DIGITS)


def _unadmitted(store: Store, spool: int, admitted: int) -> list[Assignment]:
    return store.assignments_after(admitted or decision_id(spool, 0), (spool + 1) << SEQUENCE_BITS)
