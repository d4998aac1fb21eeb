"""What the control process asks of a store. One contract for every engine; rows are plain structs.

All writes of a fold step happen inside one `transaction()`: positions commit with their rows, so every fact is in the
store exactly once, whatever is killed when.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import msgspec

from gateway.events import Assignment, Completion, Fact, Outcome, Shadow, UnitOutcome
from gateway.plan import Slot
from gateway.spool.format import Position
from gateway.spool.reader import StreamId

FOREVER = 1 << 62  # microseconds since the epoch
NO_LIMIT = 1 << 62  # rows


class StreamCursor(msgspec.Struct, frozen=True):
    """How far a stream was shipped."""

    position: Position = Position()
    through: int = 0  # time up to which it is complete
    finished: bool = False
    incarnation: bytes = b""  # of the worker that writes it, once that is known


class FoldStep(NamedTuple):
    """One row of the written order."""

    step: int
    at: int
    watermark: int
    positions: str
    cursors: str = "{}"  # JSON: {experiment: {metric: ordinal}} where this step moved them; under "" the votes admitted


class Vote(NamedTuple):
    """A unit as the statistics see it. Field order is the column order of the table."""

    experiment: str
    ordinal: int
    decision: int
    at: int
    stage: str
    variant: str
    arm: int  # 0 the champion, then the challengers in the order of the definition
    segments: tuple[str, ...]
    odds: tuple[float, ...]  # the probability of each arm, given everything seen of the unit before
    complete: bool = True  # False while an earlier window of the unit is open: counts for the gateway's metrics only
    covariates: tuple[float, ...] = ()


class UnitKey(NamedTuple):
    """Who is randomised: the assignment hash finds the row, the keyed hash of the unit id tells it apart."""

    experiment: str
    bucket: int
    unit: bytes


class KnownUnit(NamedTuple):
    """The latest complete vote of a unit, and the splits under which it was seen (`evidence.splits`)."""

    decision: int
    at: int
    known: str | None  # None: it was seen under a split that nobody wrote down, so it has no coin that could be told


class Exposure(NamedTuple):
    """What an outcome needs to know of its assignment."""

    experiment: str
    variant: str
    at: int


class Measured(NamedTuple):
    """A vote with what became of it in one metric, as the engine gives it. Millions of them pass by."""

    ordinal: int
    at: int
    stage: str
    arm: int
    odds: str  # JSON list
    segments: str  # JSON list
    covariates: str  # JSON list
    complete: int
    value: float | None  # None while nothing is known; of a ratio the numerator
    denominator: float | None


class Scored(NamedTuple):
    """A vote with its label and the predictions that were made for it."""

    ordinal: int
    at: int
    stage: str
    arm: int
    odds: str
    segments: str
    covariates: str
    complete: int
    label: float | None
    served: str | None  # the variant that answered; None without completion
    prediction: float | None  # of that variant
    failed: int  # 1 where the assigned variant's own attempt failed, whoever answered
    shadows: str  # JSON object: by variant, prediction or null


class Settled(NamedTuple):
    """What a vote counts in one metric, without the facts that said so."""

    ordinal: int
    value: float | None  # of a scored metric the label
    denominator: float | None
    predictions: str  # of a scored metric: JSON of served, prediction, failed and shadows; else ""


class Erasure(NamedTuple):
    """A unit that is to be forgotten (`store.keeping`); in the order of the table's columns."""

    unit: bytes
    endpoint: str  # "" for all
    at: int  # when it was asked for
    through: int  # what the unit did before is forgotten, and refused when it comes; 0 until that is so
    until: int  # then no file holds anything of it, but for those of who has not shipped what is older
    buckets: Mapping[str, int]  # the unit's assignment hash in each experiment, signed, until it is forgotten


class Lag(NamedTuple):
    """Outcomes that came so long after their exposure: in [2^(bucket-1), 2^bucket) milliseconds."""

    experiment: str
    variant: str
    metric: str
    bucket: int


class LedgerRow(msgspec.Struct, frozen=True):
    """One decision. `body` holds from, to, actor, reason, evidence and config digest."""

    id: int
    at: int
    step: int
    endpoint: str
    experiment: str
    kind: str
    body: dict[str, Any]
    hash: str


class PlanRow(NamedTuple):
    revision: int
    at: int
    as_of: int
    config_digest: str
    shares: str
    slots: str = "{}"  # JSON: {endpoint: [[start, variant], ...]}


class Store(Protocol):
    """Raises StoreError when the engine fails; then nothing of the open transaction is kept."""

    @property
    def node(self) -> int:
        """Who writes; 0 where a store has one node."""

    def transaction(self, *, durable: bool = False, leading: bool = False) -> AbstractContextManager[None]:
        """All or nothing; `durable` returns only when the disk has it.

        `leading` is for what only the holder of the lease may do (`store.cluster`): on one consistent view of the
        store, and raises LeaseLost if the lease is another's by now. Where a store has one node, that one leads.
        """

    def close(self) -> None: ...
    def recover(self) -> None:
        """After a StoreError, before its owner starts over: trust no connection that has failed, and nothing that was
        learned from it. Raises StoreError if it still fails."""

    @property
    def wal_bytes(self) -> int:
        """Bytes of the log beside a file, which grows while somebody stays at one moment of the store; 0 where the
        engine sees to that by itself."""

    # shipping
    def streams(self) -> dict[StreamId, StreamCursor]: ...
    def save_stream(self, stream: StreamId, before: StreamCursor | None, cursor: StreamCursor) -> None:
        """Go on from where the stream stood as far as this process knows; None for one that was never saved.

        Raises StoreError if another position is stored: then somebody has shipped the same facts, or what this
        process shipped last was lost with the engine.
        """

    def last_step(self) -> FoldStep | None: ...
    def add_step(self, step: FoldStep) -> None:
        """Raises StoreError if it does not follow the last one."""

    def add_assignments(self, step: int, facts: Iterable[Assignment]) -> None: ...
    def add_completions(self, step: int, facts: Iterable[Completion]) -> None: ...
    def add_shadows(self, step: int, facts: Iterable[Shadow]) -> None: ...
    def add_outcomes(
        self, step: int, facts: Sequence[Outcome], *, attributed: bool = False
    ) -> list[tuple[Outcome, float]]:
        """Keep outcomes; the first value of an id stays. Returns those that came again, with the value kept.

        `attributed` are those that were given by unit, in a batch of their own.
        """

    def steps(self, after: int = 0) -> Iterator[FoldStep]: ...
    def add_late(self, facts: Iterable[Fact]) -> None:
        """Keep facts that nothing is folded from any more."""

    def add_unit_outcomes(self, facts: Iterable[UnitOutcome]) -> None:
        """Park outcomes until the votes of their time are known."""

    def exposures(self, decisions: Iterable[int], times: Collection[int] = ()) -> dict[int, Exposure]:
        """Assignments by decision id, where known; `times` are when all of these were assigned, for who knows it."""

    def assignments_after(
        self, decision: int, end: int, *, before: int = FOREVER, limit: int = NO_LIMIT
    ) -> list[Assignment]:
        """Assignments with ids in (decision, end) from before a time, ascending; the first so many."""

    def erasures(self) -> list[Erasure]:
        """Of units that some file may still hold."""

    def erased_among(self, decisions: Collection[int]) -> set[int]:
        """Decisions of which nothing is kept any more."""

    def add_erased(self, decisions: Collection[int], until: int) -> None: ...

    # joining and folding
    def admitted(self) -> dict[int, int]:
        """By spool, the last decision that was admitted to a vote, or refused one."""

    def save_admitted(self, marks: Mapping[int, int]) -> None: ...
    def unit_outcomes(self, before: int) -> list[UnitOutcome]:
        """What is parked from before a time, in the order of the times; endpoints are not kept."""

    def drop_unit_outcomes(self, before: int) -> None: ...
    def known_units(self, keys: Sequence[UnitKey]) -> list[KnownUnit | None]:
        """What is known of each unit, in the order of the keys."""

    def save_units(self, units: Mapping[UnitKey, KnownUnit]) -> None: ...
    def add_revisits(self, rows: Iterable[tuple[str, int, int]]) -> None:
        """(experiment, decision of the vote, later decision of the same unit): outcomes of both are the vote's."""

    def add_votes(self, votes: Iterable[Vote]) -> None: ...
    def vote_count(self, experiment: str) -> int: ...
    def request_errors(self, experiment: str, metric: str, after: int, within_us: int) -> Iterator[Measured]:
        """Votes behind `after`; 1 where the request failed, else 0; None without a completion.

        A completion counts if it came within `within_us` of the assignment.
        """

    def request_latencies(self, experiment: str, metric: str, after: int, within_us: int) -> Iterator[Measured]:
        """The same with microseconds to the first byte; a failure is infinitely slow."""

    def outcome_values(
        self, experiment: str, metric: str, parts: Sequence[tuple[str, str]], after: int, within_us: int
    ) -> Iterator[Measured]:
        """Votes behind `after` with one metric's outcomes of the unit that came within `within_us`, or None.

        `parts` are one or two (metric, aggregate): the value, and the denominator of a ratio. Aggregates are first
        (the earliest), sum, count and max; they span the later requests of the unit, too.
        """

    def scored_values(self, experiment: str, metric: str, after: int, within_us: int) -> Iterator[Scored]:
        """Votes behind `after` with the earliest label of the vote's own request, and all predictions for it."""

    def settle(self, experiment: str, metric: str, rows: Iterable[Settled]) -> None:
        """From now on these votes count so, whatever facts there are."""

    def cursors(self, experiment: str) -> dict[str, int]: ...
    def save_cursor(self, experiment: str, metric: str, ordinal: int) -> None: ...
    def evidence(self, experiment: str) -> dict[str, bytes]: ...
    def save_evidence(self, experiment: str, step: int, states: Mapping[str, bytes]) -> None: ...
    def count(self, experiment: str, variant: str, name: str, more: int = 1) -> None: ...
    def counters(self, experiment: str) -> dict[tuple[str, str], int]: ...
    def count_lags(self, lags: Mapping[Lag, int]) -> None: ...
    def lags(self, experiment: str) -> dict[Lag, int]: ...

    # releasing
    def experiments(self) -> dict[str, tuple[str, str]]:
        """Endpoint and definition (JSON) of every experiment that ever ran, by id, in the order of their starts."""

    def add_experiment(self, id: str, endpoint: str, definition: str, at: int) -> None: ...
    def releases(self) -> dict[str, tuple[int, str]]:
        """Version and state (JSON) of every endpoint."""

    def save_release(self, endpoint: str, expected: int, state: str) -> int:
        """Compare-and-set; returns the new version, raises StoreError if another version is stored."""

    def append_ledger(
        self, at: int, step: int, endpoint: str, experiment: str, kind: str, body: Mapping[str, Any]
    ) -> LedgerRow: ...
    def ledger(self, limit: int = 100, experiment: str = "") -> list[LedgerRow]:
        """The newest rows, oldest of them first; of all experiments, or of one."""

    def broken_link(self) -> int | None:
        """The first row of the ledger that does not follow from the rows before, or None."""

    def decisions_by_kind(self, experiment: str) -> dict[str, int]: ...
    def last_plan(self) -> PlanRow | None: ...
    def next_revision(self, after: int) -> int:
        """A revision for a plan that no node has used or will use: above `after`, and above what is stored."""

    def plan_slots(self, revision: int, endpoint: str) -> tuple[Slot, ...]:
        """Who owned which part of the hash space under a published plan; () if that was not written down."""

    def add_plan(self, plan: PlanRow) -> None: ...
    def quarantine(self, endpoint: str, artifact: str, experiment: str, at: int) -> None: ...
    def quarantined(self, endpoint: str, artifact: str) -> str | None:
        """The experiment that rolled the artifact back, or None."""

    def release_from_quarantine(self, endpoint: str, artifact: str) -> None: ...
