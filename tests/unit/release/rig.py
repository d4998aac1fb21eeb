"""A controller over a real store and real spools; the store can be made to fail, the pages be filled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway import plan as plans
from gateway.assignment.ranges import owner
from gateway.clock import FakeClock
from gateway.config.load import LoadedConfig
from gateway.errors import StoreError
from gateway.events import Assignment, Completion, Outcome, decision_id
from gateway.plan import HASH_SPACE, Plan, shares
from gateway.release.controller import Controller
from gateway.release.keys import load_or_create
from gateway.release.membership import Member
from gateway.release.state import ReleaseState
from gateway.spool.writer import SpoolWriter
from gateway.store.base import Store
from gateway.store.postgres.store import PostgresStore
from gateway.store.sqlite import SqliteStore
from gateway.telemetry import metrics
from gateway.telemetry.exposition import Sample
from gateway.telemetry.metrics import Metric
from gateway.telemetry.status_page import StatusPage, Word
from tests.unit.release.configs import experiment, loaded

GOLDEN = 0x9E3779B97F4A7C15  # steps through the hash space as evenly as can be


class Flaky:
    """A store that fails at one call from now (0: at every call), or not at all."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.fails_at: int | None = None
        self.calls = 0

    @property
    def node(self) -> int:
        return self._store.node

    @property
    def wal_bytes(self) -> int:
        return self._store.wal_bytes

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self._check()
            return found(*arguments, **named)

        return call

    @contextmanager
    def transaction(self, *, durable: bool = False, leading: bool = False) -> Iterator[None]:
        self._check()
        with self._store.transaction(durable=durable, leading=leading):
            yield
            self._check()

    def fail(self, at: int = 0) -> None:
        self.calls, self.fails_at = 0, at

    def heal(self) -> None:
        self.fails_at = None

    def _check(self) -> None:
        self.calls += 1
        if self.fails_at is not None and self.fails_at in (0, self.calls):
            raise StoreError("the disk is gone")


@dataclass
class Rig:
    folder: Path
    endpoint: dict[str, Any] = field(default_factory=experiment)
    clock: FakeClock = field(default_factory=FakeClock)
    sequence: int = 0
    keys_print: str = "keys"
    url: str = ""  # of a database that other rigs share

    def __post_init__(self) -> None:
        for name in ("spool", "status"):
            (self.data / name).mkdir(parents=True)
        self.keys = load_or_create(self.data / "keys.json")
        self.sqlite, self.spool = self._open()
        self.store = Flaky(self.sqlite)
        self.page = StatusPage(self.data / "status" / f"{self.spool:08d}-ab.page")
        self.page.words[Word.SPOOL] = self.spool
        self.requests, self.outcomes = (
            SpoolWriter(self.data / "spool", self.spool, stream, b"i" * 16, self.clock)
            for stream in ("requests", "outcomes")
        )
        self.control = self.restart()

    def _open(self) -> tuple[SqliteStore | PostgresStore, int]:
        """The store, and the number of the one spool."""
        if not self.url:
            return SqliteStore(self.data / "gateway.db"), 1
        store = PostgresStore(self.url)
        return store, store.claim_spools()

    @property
    def _membership(self) -> Member | None:
        name = self.folder.name
        return Member(self.store, name, name, self.keys_print, self.clock) if self.url else None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def load(self) -> LoadedConfig:
        return loaded(self.folder, rank=self.endpoint)

    def restart(self) -> Controller:
        self.control = Controller(
            self.load(), self.store, self.data, self.keys, self.clock, membership=self._membership
        )
        return self.control

    def close(self) -> None:
        self.requests.close()
        self.outcomes.close()
        self.page.close()
        self.sqlite.close()

    def units(
        self,
        number: int,
        *,
        better: float | dict[str, float] = 0.0,
        errors: str = "",
        segments: tuple[str, ...] = (),
        fair: bool = False,
    ) -> None:
        """Units with scores; `better` is a challenger's gain, `errors` names who fails.

        Over all variants in turn, which a sample ratio bears for a while; or as `fair` hashes and the plan have it.
        """
        state = self.state
        champion = self.control.engine.evidence[state.experiment].definition.champion
        arms, plan = (champion, *state.contenders), self.plan
        for index in range(number):
            self.sequence += 1
            bucket = self.sequence * GOLDEN % HASH_SPACE
            variant = owner(plan.endpoints[0].slots, bucket) if fair else arms[-1 - index % len(arms)]
            decision = decision_id(self.spool, self.sequence)
            self.requests.append(
                Assignment(
                    decision,
                    self.requests.now(),
                    "rank",
                    state.experiment,
                    state.stage,
                    variant,
                    0.5,
                    bucket,
                    decision.to_bytes(16, "big"),
                    segments,
                    plan.revision,
                )
            )
            failed = "connect" if errors == variant else ""
            self.requests.append(Completion(decision, self.requests.now(), "a", "answered", 200, 1, 1, failed))
            gain = better.get(variant, 0.0) if isinstance(better, dict) else better
            value = 0.4 + (gain if variant != champion else 0.0)
            self.outcomes.append(Outcome("", self.outcomes.now(), decision, "rank", state.experiment, "score", value))

    def failures(self, variant: str, ok: int, error: int) -> None:
        """What the worker's status page counts."""
        for result, number in (("ok", ok), ("error", error)):
            labels = ("rank", self.state.experiment, variant, result)
            self.page.words[self.page.slot(metrics.COMPLETIONS.name, labels)] += number

    def tick(self, seconds: float = 61.0) -> None:
        self.clock.advance(seconds)
        self.requests.heartbeat()
        self.outcomes.heartbeat()
        self.control.tick()

    @property
    def state(self) -> ReleaseState:
        return self.control.states["rank"]

    @property
    def status(self) -> str:
        return self.state.status

    @property
    def plan(self) -> Plan:
        return plans.decode((self.data / "plan.json").read_bytes())

    @property
    def split(self) -> dict[str, float]:
        """As the workers serve it."""
        return {name: round(width / HASH_SPACE, 6) for name, width in shares(self.plan.endpoints[0].slots).items()}

    @property
    def kinds(self) -> list[str]:
        return [row.kind for row in self.sqlite.ledger()]


def plain(samples: Iterable[Sample]) -> Iterator[tuple[Metric, tuple[str, ...], float]]:
    """Counters and gauges, without histograms."""
    for metric, labels, value in samples:
        if not isinstance(value, tuple):
            yield metric, labels, value


class Rigs:
    """Makes rigs, each in a folder of its own, and closes them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: list[Rig] = []
        self._made = 0

    def __call__(self, **named: Any) -> Rig:
        self._made += 1
        folder = self._folder / str(self._made)
        folder.mkdir()
        self._open.append(Rig(folder, **named))
        return self._open[-1]

    def close(self) -> None:
        while self._open:
            self._open.pop().close()
