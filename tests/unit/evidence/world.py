"""Synthetic spools under a fake clock, and an engine that reads them: what the tests of the evidence stand on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.clock import Clock, FakeClock
from gateway.events import Assignment, Completion, Outcome, Rejection, Shadow, decision_id, spool_of
from gateway.evidence.definition import Definition, MetricDefinition
from gateway.evidence.engine import Engine
from gateway.evidence.report import Report, Thresholds
from gateway.evidence.verdict import judge
from gateway.plan import HASH_SPACE
from gateway.spool.writer import SpoolWriter
from gateway.store.base import PlanRow, Store
from gateway.store.sqlite import SqliteStore

SECOND = 1_000_000
BRIER = MetricDefinition(name="brier", type="bounded", source="outcome", increase=False, window_us=60 * SECOND)
ERRORS = MetricDefinition(name="errors", type="binary", source="gateway", increase=False, margin=0.05)
LATENCY = MetricDefinition(
    name="latency", type="latency", source="gateway", increase=False, limit_us=250_000, margin=0.05
)
THRESHOLDS = Thresholds(alpha=0.01, alpha_rollback=0.01, alpha_errors=0.001, alpha_guardrail=0.05, alpha_srm=0.001)


def definition(*metrics: MetricDefinition, objective: str = "brier", effect: float = 0.1) -> Definition:
    return Definition(
        id="exp",
        endpoint="rank",
        champion="a",
        challengers=("b",),
        metrics=metrics or (BRIER, ERRORS, LATENCY),
        objective=objective,
        expected_effect=effect,
        min_effect=effect / 2,
        segments=("origin",),
        segment_values=(("EWR", "JFK"),),
        answer_within_us=2 * SECOND,
    )


@dataclass(slots=True)
class Shard:
    """Both streams of one worker."""

    requests: SpoolWriter
    outcomes: SpoolWriter
    sequence: int = 0

    def heartbeat(self) -> None:
        self.requests.heartbeat()
        self.outcomes.heartbeat()

    def die(self) -> None:
        self.requests.close()
        self.outcomes.close()


@dataclass(slots=True)
class World:
    """A node without workers: facts are appended by hand, time is told."""

    folder: Path
    define: Definition = field(default_factory=definition)
    clock: FakeClock = field(default_factory=FakeClock)
    shards: list[Shard] = field(default_factory=list)
    store: Any = None
    engine: Engine = field(init=False)
    _revisions: dict[tuple[tuple[str, float], ...], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.folder / "spool").mkdir(parents=True, exist_ok=True)
        self.store = self.store or SqliteStore(self.folder / "gateway.db")
        self.engine = Engine(self.folder / "spool", self.store, self.clock)
        with self.store.transaction():
            self.engine.start(self.define)

    def shard(self, clock: Clock | None = None) -> Shard:
        """A new worker appears."""
        number = len(self.shards) + 1
        clock = clock or self.clock
        requests, outcomes = (
            SpoolWriter(self.folder / "spool", number, stream, b"i" * 16, clock) for stream in ("requests", "outcomes")
        )
        self.shards.append(Shard(requests, outcomes))
        return self.shards[-1]

    def restart(self) -> None:
        """The control process died; a new one knows what the store knows."""
        self.engine = Engine(self.folder / "spool", self.store, self.clock)

    def make_mortal(self, store: Mortal) -> None:
        """From now on the engine talks to this store."""
        folder = self.engine._folder
        self.engine._store = folder._store = folder._admission.splits._store = store

    def close(self) -> None:
        for shard in self.shards:
            shard.die()
        self.store.close()

    def plan(self, **shares: float) -> int:
        """The revision of the plan with these challengers' shares, published when it is first asked for.

        Challengers hold the end of the hash space, the last of them the very end; the champion has the rest.
        """
        key = tuple(shares.items())
        if key not in self._revisions:
            self._revisions[key] = revision = len(self._revisions) + 1
            start = HASH_SPACE
            slots: list[tuple[int, str]] = []
            for name, share in reversed(key):
                start -= round(share * HASH_SPACE)
                if share > 0.0:
                    slots.insert(0, (start, name))
            if start > 0:
                slots.insert(0, (0, self.define.champion))
            self.store.add_plan(PlanRow(revision, 0, 0, "", "{}", json.dumps({"rank": slots})))
        return self._revisions[key]

    def assign(
        self,
        unit: object,
        variant: bool | str,
        *,
        pi: float | dict[str, float] = 0.5,
        shard: int = 0,
        stage: str = "s1",
        origin: str = "EWR",
        flags: int = 0,
        experiment: str = "exp",
        covariates: tuple[float, ...] = (),
    ) -> int:
        """A unit is given a variant (True: the first challenger); `pi` is that one's share, or one for each."""
        to = self.shards[shard]
        to.sequence += 1
        digest = hashlib.blake2b(str(unit).encode(), digest_size=16).digest()
        name = variant if isinstance(variant, str) else self.define.arms[int(variant)]
        shares = pi if isinstance(pi, dict) else {self.define.challengers[0]: pi}
        fact = Assignment(
            decision_id(to.requests.number, to.sequence),
            to.requests.now(),
            "rank",
            experiment,
            stage,
            name,
            shares.get(name, 1.0 - sum(shares.values())),
            int.from_bytes(digest[:8], "big"),
            digest,
            (origin,),
            self.plan(**shares),
            flags,
            covariates,
        )
        to.requests.append(fact)
        return fact.decision

    def complete(
        self,
        decision: int,
        *,
        error: str = "",
        first_byte_us: int = 1000,
        served: str = "a",
        prediction: float | None = None,
    ) -> None:
        to = self.shards[spool_of(decision) - 1].requests
        times = first_byte_us, first_byte_us
        to.append(Completion(decision, to.now(), served, "answered", 200, *times, error, prediction))

    def shadow(self, decision: int, variant: str, prediction: float | None) -> None:
        to = self.shards[spool_of(decision) - 1].requests
        to.append(Shadow(decision, to.now(), variant, 1000, "" if prediction is not None else "output", prediction))

    def outcome(self, decision: int, value: float, *, id: str = "", shard: int = 0, metric: str = "brier") -> None:
        to = self.shards[shard].outcomes
        to.append(Outcome(id, to.now(), decision, "rank", "exp", metric, value))

    def reject(self, decision: int) -> None:
        to = self.shards[0].outcomes
        to.append(Rejection(to.now(), decision, "rank", "exp", "value_rejected"))

    def whole(self, unit: object, variant: bool | str, value: float | None, **how: Any) -> int:
        """A unit from assignment to outcome."""
        decision = self.assign(unit, variant, **how)
        self.complete(decision)
        if value is not None:
            self.outcome(decision, value, shard=how.get("shard", 0))
        return decision

    def pass_time(self, seconds: float) -> None:
        """Time passes, and idle workers say so."""
        self.clock.advance(seconds)
        for shard in self.shards:
            shard.heartbeat()

    def step(self, seconds: float = 0.0) -> int:
        if seconds:
            self.pass_time(seconds)
        return self.engine.step()

    def settle(self) -> None:
        """Everything that can close has closed and is folded."""
        self.step(3600.0)
        while self.engine.step():
            pass

    @property
    def states(self) -> dict[str, bytes]:
        found: dict[str, bytes] = self.store.evidence("exp")
        return found

    @property
    def votes(self) -> list[tuple[Any, ...]]:
        """Votes without the decision ids, which depend on the sharding."""
        rows = self.store.rows(
            "SELECT ordinal, at, stage, variant, arm, odds, segments, complete FROM vote ORDER BY ordinal"
        )
        return list(rows)

    @property
    def counters(self) -> dict[tuple[str, str], int]:
        found: dict[tuple[str, str], int] = self.store.counters("exp")
        return found

    @property
    def report(self) -> Report:
        evidence = self.engine.evidence["exp"]
        return judge(evidence, THRESHOLDS, self.engine.units("exp"), self.engine.folded("exp"))


class Killed(BaseException):
    """The process ends here."""


class Mortal:
    """A store under which the process is killed at the n-th call, or right before the n-th commit."""

    def __init__(self, store: Store, dies_at: int) -> None:
        self._store = store
        self.left = dies_at

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self._live()
            return found(*arguments, **named)

        return call

    @contextmanager
    def transaction(self, *, durable: bool = False, leading: bool = False) -> Iterator[None]:
        self._live()
        with self._store.transaction(durable=durable, leading=leading):
            yield
            self._live()

    def _live(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed
