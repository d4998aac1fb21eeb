"""A node without traffic: facts as a busy worker leaves them, and a controller whose time is told by stages."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gateway.admin.views import status
from gateway.clock import FakeClock
from gateway.config.load import load
from gateway.events import Assignment, Completion, Outcome, decision_id
from gateway.plan import HASH_SPACE, Slot
from gateway.release.controller import Controller
from gateway.release.intake import ReloadStatus
from gateway.release.keys import load_or_create
from gateway.release.membership import Member
from gateway.serving.counters import VariantCounters
from gateway.spool.writer import SpoolWriter
from gateway.store.base import Store
from gateway.store.cluster import SharedStore
from gateway.store.open import open_store
from gateway.telemetry.status_page import StatusPage, Word

if TYPE_CHECKING:
    from gateway.store.open import AnyStore

ENDPOINT = "score"
ORIGINS = ("EWR", "JFK", "LGA")
OUTCOME = "brier"
TICK = 0.1  # seconds
IN_FLIGHT = 32
INCARNATION = b"bench-bench-benc"


@dataclass(slots=True)
class Users:
    """The users of an endpoint in turn, known by keyed hashes as a worker knows them."""

    count: int  # 0: every request is a user of its own
    _seen: int = 0

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        while True:
            self._seen += 1
            user = self._seen % self.count if self.count else self._seen
            digest = hashlib.blake2b(user.to_bytes(8, "big"), digest_size=24).digest()
            yield int.from_bytes(digest[:8], "big"), digest[8:]


class Worker:
    """Appends what requests leave: an assignment, and behind `IN_FLIGHT` later ones the completion."""

    def __init__(self, folder: Path, clock: FakeClock, experiment: str) -> None:
        self._clock = clock
        self._experiment = experiment
        self._spools = [SpoolWriter(folder / "spool", 1, name, INCARNATION, clock) for name in ("requests", "outcomes")]
        self._waiting: deque[Assignment] = deque()
        self._sequence = 0
        self._page = StatusPage(folder / "status" / f"00000001-{INCARNATION.hex()}.page")
        self._page.words[Word.SPOOL] = 1
        self._counters = {name: VariantCounters(self._page, ENDPOINT, experiment, name) for name in ("a", "b")}

    def serve(self, users: Iterator[tuple[int, bytes]], requests: int, slots: tuple[Slot, ...], revision: int) -> None:
        """What one tick of traffic leaves, spread over the tick."""
        for _ in range(requests):
            self._clock.advance(TICK / requests)
            self._assign(*next(users), slots, revision)
            if len(self._waiting) > IN_FLIGHT:
                self._complete(self._waiting.popleft())

    def post(self, requests: int) -> None:
        """An outcome for each of the last requests."""
        requests_spool, outcomes = self._spools
        last = decision_id(requests_spool.number, self._sequence)
        named = ENDPOINT, self._experiment, OUTCOME
        outcomes.append_all(
            [Outcome("", outcomes.now(), last - n, *named, n % 100 / 100) for n in reversed(range(requests))]
        )

    def heartbeat(self) -> None:
        for spool in self._spools:
            spool.heartbeat()

    def close(self) -> None:
        for spool in self._spools:
            spool.close()
        self._page.close()

    def _assign(self, point: int, unit: bytes, slots: tuple[Slot, ...], revision: int) -> None:
        self._sequence += 1
        slot = max((slot for slot in slots if slot.start <= point), key=lambda slot: slot.start)
        width = min((s.start for s in slots if s.start > slot.start), default=HASH_SPACE) - slot.start
        spool = self._spools[0]
        fact = Assignment(
            decision_id(spool.number, self._sequence),
            spool.now(),
            ENDPOINT,
            self._experiment,
            "traffic-20" if self._experiment else "",
            slot.variant,
            width / HASH_SPACE,
            point,
            unit,
            (ORIGINS[self._sequence % 3],),
            revision,
        )
        spool.append(fact)
        self._waiting.append(fact)

    def _complete(self, fact: Assignment) -> None:
        spool, took = self._spools[0], 4000 + fact.decision % 1000
        error = "" if fact.decision % 200 else "status"
        spool.append(Completion(fact.decision, spool.now(), fact.variant, "answered", 200, took, took + 50, error))
        self._counters[fact.variant].completed(error, took, False)


class Laps:
    """A store under which CPU time is told by stages: all since the last call belongs to the call that ends it."""

    def __init__(self, store: AnyStore, stages: dict[str, str]) -> None:
        self._store = store
        self._stages = stages
        self._last = 0
        self.ns: Counter[str] = Counter()
        self.wall_ns = 0  # of whole rounds

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)

        def call(*arguments: Any, **named: Any) -> Any:
            result = found(*arguments, **named)
            self.lap(self._stages.get(name, "rest"))
            return result

        return call

    @property
    def node(self) -> int:
        return self._store.node

    @contextmanager
    def transaction(self, **how: bool) -> Iterator[None]:
        self.lap("read, decode")
        with self._store.transaction(**how):
            yield
            self.lap("rest")
        self.lap("commit")

    def start(self) -> None:
        self._last = time.process_time_ns()

    def lap(self, stage: str) -> None:
        now = time.process_time_ns()
        self.ns[stage] += now - self._last
        self._last = now


@dataclass(slots=True)
class Node:
    """A controller over the store and spools of one folder. `store` is a URL, by default of a file in the folder."""

    folder: Path
    document: dict[str, Any]
    stages: dict[str, str]
    store: str = ""
    clock: FakeClock = field(default_factory=FakeClock)
    laps: Laps = field(init=False)
    controller: Controller = field(init=False)

    def __post_init__(self) -> None:
        for name in ("spool", "status"):
            (self.folder / name).mkdir(parents=True)
        config = self.folder / "gateway.yaml"
        config.write_text(json.dumps(self.document))
        self.laps = Laps(open_store(self.store or f"sqlite:///{self.folder / 'gateway.db'}"), self.stages)
        keys, member = load_or_create(self.folder / "keys.json"), None
        if self.store:
            shared = cast("SharedStore", self.laps)
            member = Member(shared, str(self.folder), "bench", keys.fingerprint, self.clock)
        store = cast("Store", self.laps)
        self.controller = Controller(load(config), store, self.folder, keys, self.clock, membership=member)

    def tick(self) -> None:
        """One round of the control loop, its CPU time told by stages."""
        began = time.perf_counter_ns()
        self.laps.start()
        self.controller.tick()
        self.laps.lap("judge")
        status(self.controller, ReloadStatus(0), self.clock.wall_us())
        self.laps.lap("snapshot")
        self.laps.wall_ns += time.perf_counter_ns() - began

    def slots(self) -> tuple[Slot, ...]:
        return self.laps.plan_slots(self.controller.plan_revision, ENDPOINT)  # type: ignore[no-any-return]

    def close(self) -> None:
        self.laps.close()
