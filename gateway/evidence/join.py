"""Admission: assignments become votes, in the order of their coins.

Order is (time, decision id) over all spools, up to the watermark (rule R2). A unit votes at its first exposure, and
again under a later split if its hash leaves a coin (`known`, rule R6); a vote while an earlier window is open counts
for the gateway's own metrics only. Forced assignments have no vote, because no coin was thrown. Whoever was exposed
without a vote has spent the coin all the same: whether a unit comes back may depend on what it met (DROP in rule R1).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from operator import attrgetter
from typing import NamedTuple

from gateway.events import FORCED, SEQUENCE_BITS, Assignment, Outcome, UnitOutcome, decision_id, spool_of
from gateway.evidence.cells import Evidence
from gateway.evidence.definition import Definition
from gateway.evidence.splits import Splits, seen_too
from gateway.evidence.units import Units
from gateway.store.base import KnownUnit, Store, UnitKey, Vote

_STRANGER = KnownUnit(0, -(1 << 62), "")  # no vote, hence no window that is open


@dataclass(slots=True)
class Admission:
    """Assignments that were shipped but lie beyond the watermark, and the number of votes."""

    splits: Splits
    pending: list[Assignment] = field(default_factory=list)
    known: Units = field(default_factory=Units)
    ordinals: dict[str, int] = field(default_factory=dict)  # votes so far, by experiment

    @classmethod
    def restore(cls, store: Store) -> Admission:
        """What a restarted control process finds: rows behind each spool's admitted mark."""
        admitted = store.admitted()
        spools = sorted({stream.spool for stream in store.streams() if stream.stream == "requests"})
        pending = [fact for spool in spools for fact in unadmitted(store, spool, admitted.get(spool, 0))]
        return cls(Splits(store), pending)

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
    ) -> Admitted:
        """Admit everything older than the watermark.

        Every stream is complete up to the watermark, so whatever comes later and is older than the one `before` was
        written by a spool that had been declared dead: late, counted, no vote. Outcomes that were given by unit find
        their votes on the way, for which their time is compared with those of the coins.
        """
        due = self._due(fresh, watermark)
        _count(store, "late", takewhile(lambda fact: fact.at < before, due))
        parked = store.unit_outcomes(watermark)
        attributed = self._vote(store, due, parked, before, evidence)
        if parked:
            store.drop_unit_outcomes(watermark)
        marks = {spool_of(decision): decision for decision in sorted([fact.decision for fact in due])}
        return Admitted(marks, attributed, bool(parked))

    def _due(self, fresh: list[Assignment], watermark: int) -> list[Assignment]:
        waiting = self.pending + fresh
        self.pending = [fact for fact in waiting if fact.at >= watermark]
        due = [fact for fact in waiting if fact.at < watermark] if self.pending else waiting
        return sorted(due, key=_coin_order)

    def _vote(
        self,
        store: Store,
        facts: list[Assignment],
        parked: list[UnitOutcome],
        before: int,
        evidence: Mapping[str, Evidence],
    ) -> list[Outcome]:
        drawn = [fact for fact in facts if fact.experiment in evidence and not fact.flags & FORCED]
        parked = [fact for fact in parked if fact.experiment in evidence]
        if not drawn and not parked:
            return []
        events: list[Assignment | UnitOutcome] = sorted([*drawn, *parked], key=attrgetter("at"))
        keys = [UnitKey(fact.experiment, fact.bucket, fact.unit) for fact in events]
        ballot = _Ballot(self.known.recall(store, keys))
        terms = {
            id: _Terms(evidence[id].definition, self.splits, self.units(store, id))
            for id in {key.experiment for key in keys}
        }
        for key, fact in zip(keys, events, strict=True):
            if isinstance(fact, Assignment):
                ballot.cast(key, fact, terms[fact.experiment], late=fact.at < before)
            else:
                ballot.attribute(key, fact, terms[fact.experiment])
        _count(store, "unexplained", ballot.unexplained)
        store.save_units(ballot.changed)
        store.add_revisits(ballot.revisits)
        for experiment, votes in ballot.votes.items():
            self.ordinals[experiment] = votes[-1].ordinal
            store.add_votes(votes)
            evidence[experiment].fold_coins([vote.arm for vote in votes], [vote.odds for vote in votes])
        for (experiment, name), number in sorted(ballot.lost.items()):
            store.count(experiment, "", name, number)
        return ballot.attributed


class Admitted(NamedTuple):
    """What admitting came to."""

    marks: dict[int, int]  # the last decision admitted of each spool
    attributed: list[Outcome]  # outcomes that were given by unit, with the votes that they belong to
    unparked: bool  # whether any of these were due, attributed or not


class _Coin(NamedTuple):
    """What one exposure of a unit is worth."""

    odds: tuple[float, ...]  # of each arm; () where they cannot be told, or tell that this variant was impossible
    known: str | None = None  # what is known of the unit from now on
    thrown: bool = False  # whether chance decided anything: not where the place of the hash was known already


class _Terms:
    """What the exposures of one experiment are judged by, in one step; and its last vote."""

    __slots__ = ("_coins", "_splits", "arms", "number", "ordinal", "window_us", "windows")

    def __init__(self, definition: Definition, splits: Splits, ordinal: int) -> None:
        self._splits = splits
        self._coins: dict[tuple[str | None, str, int, str], _Coin] = {}  # few: most units have few pasts
        self.arms = definition.arms
        self.number = {name: arm for arm, name in enumerate(self.arms)}
        self.window_us = definition.longest_us
        self.windows = {metric.name: metric.within_us for metric in definition.metrics if metric.source == "outcome"}
        self.ordinal = ordinal

    def coin(self, known: str | None, fact: Assignment) -> _Coin:
        """The coin of a unit of which so much is known."""
        key = known, fact.endpoint, fact.revision, fact.variant
        coin = self._coins.get(key)
        if coin is None:
            coin = self._coins[key] = self._coin(known, fact)
        return coin

    def _coin(self, known: str | None, fact: Assignment) -> _Coin:
        split, arm = self._splits.name(fact), self.number.get(fact.variant)
        if not split or known is None or arm is None:
            return _Coin(())
        odds = self._splits.odds(fact.endpoint, known, split, self.arms)
        if odds[arm] == 0.0:
            return _Coin(())
        return _Coin(odds, seen_too(known, split, fact.variant), thrown=1.0 not in odds)


@dataclass(slots=True)
class _Ballot:
    """The votes of one step in the making."""

    units: dict[UnitKey, KnownUnit | None]
    changed: dict[UnitKey, KnownUnit] = field(default_factory=dict)
    votes: dict[str, list[Vote]] = field(default_factory=lambda: defaultdict(list))
    revisits: list[tuple[str, int, int]] = field(default_factory=list)
    unexplained: list[Assignment] = field(default_factory=list)  # that do not follow from the plan they name
    attributed: list[Outcome] = field(default_factory=list)
    lost: Counter[tuple[str, str]] = field(default_factory=Counter)  # outcomes by unit without a vote, or too late

    def cast(self, key: UnitKey, fact: Assignment, terms: _Terms, *, late: bool) -> None:
        """One exposure: a vote, a later request of a vote, or nothing."""
        unit = self.units[key] or _STRANGER
        complete = fact.at >= unit.at + terms.window_us
        if not complete and not late:
            self.revisits.append((fact.experiment, unit.decision, fact.decision))
        coin = terms.coin(unit.known, fact)
        if not coin.odds:
            self.unexplained.append(fact)
            self._remember(key, unit._replace(known=None))
        elif coin.thrown:
            # Whether it becomes a vote or not: where the hash lies has been shown, and no coin is left.
            if not late:
                self._add(fact, terms, coin.odds, complete)
            voted = complete and not late
            at = (fact.decision, fact.at) if voted else (unit.decision, unit.at)
            self._remember(key, KnownUnit(*at, coin.known))

    def attribute(self, key: UnitKey, fact: UnitOutcome, terms: _Terms) -> None:
        """An outcome that was given by unit is the latest vote's, if its window holds the arrival."""
        unit = self.units[key] or _STRANGER
        window = terms.windows.get(fact.metric)
        if window is None or not unit.decision:
            self.lost[fact.experiment, "unmatched"] += 1
        elif fact.at >= unit.at + window:
            self.lost[fact.experiment, "late"] += 1
        else:
            about = unit.decision, fact.endpoint, fact.experiment
            self.attributed.append(
                Outcome(fact.id, fact.at, *about, fact.metric, fact.value, unit.at, fact.happened_at)
            )

    def _add(self, fact: Assignment, terms: _Terms, odds: tuple[float, ...], complete: bool) -> None:
        terms.ordinal += 1
        self.votes[fact.experiment].append(
            Vote(
                fact.experiment,
                terms.ordinal,
                fact.decision,
                fact.at,
                fact.stage,
                fact.variant,
                terms.number[fact.variant],
                fact.segments,
                odds,
                complete,
                fact.covariates,
            )
        )

    def _remember(self, key: UnitKey, unit: KnownUnit) -> None:
        if unit != self.units[key]:
            self.units[key] = self.changed[key] = unit


_coin_order = attrgetter("at", "decision")


def _count(store: Store, name: str, facts: Iterable[Assignment]) -> None:
    for (experiment, variant), number in sorted(Counter((fact.experiment, fact.variant) for fact in facts).items()):
        store.count(experiment, variant, name, number)


def unadmitted(store: Store, spool: int, admitted: int) -> list[Assignment]:
    """What a spool has brought to the store behind a decision; 0 for all of it."""
    return store.assignments_after(admitted or decision_id(spool, 0), (spool + 1) << SEQUENCE_BITS)
