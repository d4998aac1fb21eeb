"""Admission: assignments become votes, in the order of their coins.

Order is (time, decision id) over all spools, up to the watermark (rule R2). A unit votes at its first exposure
only; forced assignments and splits of 0 or 1 have no vote, because no coin was thrown.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from gateway.events import FORCED, Assignment, decision_id, spool_of
from gateway.evidence.cells import ASSIGNED, Evidence
from gateway.evidence.ship import end_of_spool
from gateway.spool.reader import StreamId
from gateway.store.base import Store, StreamCursor, Vote


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

    def admit(
        self,
        store: Store,
        fresh: list[Assignment],
        before: int,
        watermark: int,
        evidence: dict[str, Evidence],
    ) -> dict[int, int]:
        """Admit everything older than the watermark; returns the last decision admitted of each spool.

        Every stream is complete up to the watermark, so whatever comes later and is older than the one `before` was
        written by a spool that had been declared dead: late, counted, no vote.
        """
        waiting = self.pending + fresh
        due = sorted((a for a in waiting if a.at < watermark), key=lambda a: (a.at, a.decision))
        self.pending = [a for a in waiting if a.at >= watermark]
        votes: dict[str, list[Vote]] = defaultdict(list)
        marks: dict[int, int] = {}
        for assignment in due:
            spool = spool_of(assignment.decision)
            marks[spool] = max(marks.get(spool, 0), assignment.decision)
            if assignment.at < before:
                store.count(assignment.experiment, assignment.variant, "late")
            elif assignment.experiment in evidence:
                self._vote(store, assignment, evidence[assignment.experiment], votes)
        for experiment, rows in votes.items():
            store.add_votes(rows)
            pi = np.array([row.pi for row in rows])
            evidence[experiment].fold_ratio(ASSIGNED, pi, np.array([row.challenger for row in rows]))
        return marks

    def _vote(self, store: Store, fact: Assignment, evidence: Evidence, votes: dict[str, list[Vote]]) -> None:
        definition = evidence.definition
        challenger = fact.variant == definition.challenger
        # One challenger and the champion share the whole hash space, so either share gives the other.
        pi = fact.pi if challenger else 1.0 - fact.pi
        if not 0.0 < pi < 1.0 or fact.flags & FORCED:
            return
        if not store.claim_unit(fact.experiment, fact.bucket, fact.unit, fact.decision):
            return
        if fact.experiment not in self.ordinals:
            self.ordinals[fact.experiment] = store.vote_count(fact.experiment)
        self.ordinals[fact.experiment] += 1
        votes[fact.experiment].append(
            Vote(
                fact.experiment,
                self.ordinals[fact.experiment],
                fact.decision,
                fact.at,
                fact.stage,
                fact.variant,
                challenger,
                pi,
                json.dumps(fact.segments),
            )
        )


def _unadmitted(store: Store, spool: int, admitted: int) -> list[Assignment]:
    first = admitted or decision_id(spool, 0)
    return store.assignments_after(first, end_of_spool(first))
