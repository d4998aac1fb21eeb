"""What the control process asks of a store. One contract for every engine; rows are plain structs.

All writes of a fold step happen inside one `transaction()`: positions commit with their rows, so every fact is in the
store exactly once, whatever is killed when.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol, TypeAlias

import msgspec

from gateway.events import Assignment, Completion, Outcome
from gateway.spool.format import Position
from gateway.spool.reader import StreamId


class StreamCursor(msgspec.Struct, frozen=True):
    """How far a stream was shipped."""

    position: Position = Position()
    through: int = 0
    admitted: int = 0
    finished: bool = False


class FoldStep(NamedTuple):
    """One row of the written order."""

    step: int
    at: int
    watermark: int
    positions: str


class Vote(NamedTuple):
    """A unit as the statistics see it. Field order is the column order of the table."""

    experiment: str
    ordinal: int
    decision: int
    at: int
    stage: str
    variant: str
    challenger: bool
    pi: float
    segments: tuple[str, ...]


class Claim(NamedTuple):
    """A decision that would be the first exposure of its unit."""

    experiment: str
    bucket: int
    unit: bytes
    decision: int


class Exposure(NamedTuple):
    """What an outcome needs to know of its assignment."""

    experiment: str
    variant: str
    at: int


# A vote and its value in one metric, as the engine gives it: ordinal, at, stage, challenger (0 or 1), pi, segments
# (JSON), value. The value is None while nothing is known. A plain tuple, because millions of them pass by.
Measured: TypeAlias = tuple[int, int, str, int, float, str, float | None]


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


class Store(Protocol):
    """Raises StoreError when the engine fails; then nothing of the open transaction is kept."""

    def transaction(self, *, durable: bool = False) -> AbstractContextManager[None]:
        """All or nothing; `durable` returns only when the disk has it."""

    def close(self) -> None: ...

    # shipping
    def streams(self) -> dict[StreamId, StreamCursor]: ...
    def save_stream(self, stream: StreamId, cursor: StreamCursor) -> None: ...
    def last_step(self) -> FoldStep | None: ...
    def add_step(self, step: FoldStep) -> None: ...
    def add_assignments(self, step: int, facts: Iterable[Assignment]) -> None: ...
    def add_completions(self, step: int, facts: Iterable[Completion]) -> None: ...
    def add_outcomes(self, step: int, facts: Sequence[Outcome]) -> list[tuple[Outcome, float]]:
        """Keep outcomes; the first value of an id stays. Returns those that came again, with the value kept."""

    def exposures(self, decisions: Iterable[int]) -> dict[int, Exposure]:
        """Assignments by decision id, where known."""

    def assignments_after(self, decision: int, end: int) -> list[Assignment]:
        """Assignments with ids in (decision, end), ascending."""

    # joining and folding
    def claim_units(self, claims: Sequence[Claim]) -> list[bool]:
        """Whether each decision is the first exposure of its unit; among equals the earlier in the list wins."""

    def add_votes(self, votes: Iterable[Vote]) -> None: ...
    def vote_count(self, experiment: str) -> int: ...
    def request_values(self, experiment: str, after: int, within_us: int, limit_us: int | None) -> Iterator[Measured]:
        """Votes behind `after` with how their requests ended: 1 for a failure or, with a limit, a slow answer.

        A completion counts if it came within `within_us` of the assignment; otherwise the value is None.
        """

    def outcome_values(self, experiment: str, metric: str, after: int, within_us: int) -> Iterator[Measured]:
        """Votes behind `after` with the earliest outcome of a metric that came within `within_us`, or None."""

    def cursors(self, experiment: str) -> dict[str, int]: ...
    def save_cursor(self, experiment: str, metric: str, ordinal: int) -> None: ...
    def evidence(self, experiment: str) -> dict[str, bytes]: ...
    def save_evidence(self, experiment: str, step: int, states: Mapping[str, bytes]) -> None: ...
    def count(self, experiment: str, variant: str, name: str, more: int = 1) -> None: ...
    def counters(self, experiment: str) -> dict[tuple[str, str], int]: ...

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
    def ledger(self, limit: int = 100) -> list[LedgerRow]:
        """The newest rows, oldest of them first."""

    def broken_link(self) -> int | None:
        """The first row of the ledger that does not follow from the rows before, or None."""

    def decisions_by_kind(self, experiment: str) -> dict[str, int]: ...
    def last_plan(self) -> PlanRow | None: ...
    def add_plan(self, plan: PlanRow) -> None: ...
    def quarantine(self, endpoint: str, artifact: str, experiment: str, at: int) -> None: ...
    def quarantined(self, endpoint: str, artifact: str) -> str | None:
        """The experiment that rolled the artifact back, or None."""

    def release_from_quarantine(self, endpoint: str, artifact: str) -> None: ...
