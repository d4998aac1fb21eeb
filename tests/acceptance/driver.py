"""A whole gateway in one process and one thread of time: real workers, real control plane, a clock that is told.

Workers are called as ASGI applications, without sockets; requests, outcomes and ticks follow one another, so a run
depends on its seed alone. `run_scenario` is also what `benchmarks/prove.py` calls over many seeds.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from gateway.clock import FakeClock
from gateway.config.load import load
from gateway.control_plane import ControlPlane
from gateway.demo import replay
from gateway.demo.scenarios import ENDPOINT, SCENARIOS, assets, write_config
from gateway.worker import Worker

BLOCK = 400  # flights in one block, as in the demo
STEP = 0.25  # seconds between two rounds of the control plane
PATIENCE = 40  # rounds within which a block must be folded
ENDINGS = {"promoted": "promote", "rolled_back": "rollback", "inconclusive": "inconclusive"}

Answer = tuple[int, dict[bytes, bytes], bytes]


async def call(worker: Worker, method: str, path: str, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> Answer:
    """One request put to a worker's application."""
    sent: list[Any] = []
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "headers": list(headers)}
    scope |= {"query_string": b"", "http_version": "1.1"}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await worker.app(scope, receive, send)
    content = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], dict(sent[0]["headers"]), content


async def _poll(worker: Worker) -> None:
    """Models are loaded in a thread, which knows nothing of the clock that is told."""
    await worker.poll()
    while worker.loading:
        await asyncio.sleep(0.001)
        await worker.poll()


@dataclass(slots=True)
class Node:
    """Workers and control plane over one data directory."""

    config: Path
    clock: FakeClock = field(default_factory=FakeClock)
    workers: list[Worker] = field(default_factory=list)
    control: ControlPlane = field(init=False)
    _spools: int = 0

    def __post_init__(self) -> None:
        self.control = ControlPlane(load(self.config), self.clock)

    async def start(self, workers: int) -> None:
        for _ in range(workers):
            self._spools += 1
            worker = Worker(self.control.controller.loaded.config.data_dir, self._spools, self.clock)
            await _poll(worker)
            self.workers.append(worker)

    async def round(self, seconds: float = STEP) -> None:
        """Time passes; everybody looks around once."""
        self.clock.advance(seconds)
        for worker in self.workers:
            await _poll(worker)
        self.control.poll()

    def kill_control(self) -> None:
        """The control process dies between two rounds, nothing is closed; a new one starts over the same files."""
        self.control = ControlPlane(load(self.config), self.clock)

    async def stop(self) -> None:
        for worker in self.workers:
            await worker.close()
        self.control.close()

    @property
    def status(self) -> dict[str, Any]:
        endpoint: dict[str, Any] = self.control.snapshot["endpoints"][ENDPOINT]
        return endpoint

    @property
    def collecting(self) -> bool:
        """Whether evidence may still change anything: an experiment runs, or the watch after it."""
        return self.status["status"] == "running" or self.status["experiment"]["watch"] is not None

    @property
    def converged(self) -> bool:
        revision = self.control.snapshot["plan_revision"]
        return all(worker.app.table and worker.app.table.plan.revision == revision for worker in self.workers)


def squared_error(flights: replay.Flights, index: int, probability: float) -> float:
    """What a client of the demo posts: it has scored the prediction itself."""
    return flights.score(index, probability)


def label(flights: replay.Flights, index: int, probability: float) -> float:
    """What a client posts for a metric of type score: whether the flight was late, whatever was predicted."""
    return float(flights.late[index])


@dataclass(slots=True)
class Run:
    """One experiment, block by block."""

    node: Node
    flights: replay.Flights
    seed: int
    posts: Callable[[replay.Flights, int, float], float] = squared_error
    sent: int = 0
    failed: int = 0

    async def block(self, first: int, size: int = BLOCK) -> None:
        """Send flights, report what became of them, and wait until all is folded, decided upon and served."""
        indices = range(first, min(first + size, len(self.flights)))
        outcomes: list[list[dict[str, Any]]] = [[] for _ in self.node.workers]
        for index in indices:
            # Whoever answers, another worker may take the outcome.
            outcome = await self._ask(index)
            if outcome is not None:
                outcomes[(index // 7) % len(outcomes)].append(outcome)
        for worker, batch in zip(self.node.workers, outcomes, strict=True):
            if batch:
                status, _, body = await call(worker, "POST", "/v1/outcomes", _JSON, orjson.dumps(batch))
                assert status == 200, body
        self.sent += len(indices)
        await self.settle()

    async def settle(self) -> None:
        for _ in range(PATIENCE):
            await self.node.round()
            status = self.node.status
            if not self.node.collecting and self.node.converged:
                return
            folded = (status["experiment"]["report"] or {}).get("folded", 0)
            waits = (status["experiment"]["next"] or {}).get("reason") == "promotion_waits"
            if folded >= self.sent and not waits and self.node.converged:
                return
        raise AssertionError(f"{self.sent} units were not folded within {PATIENCE} rounds: {self.node.status}")

    async def _ask(self, index: int) -> dict[str, Any] | None:
        worker = self.node.workers[index % len(self.node.workers)]
        headers = [*_JSON, (b"x-request-id", b"%d-%d" % (self.seed, index))]
        headers.append((b"x-origin", self.flights.origin[index].encode()))
        self.node.clock.advance(0.0001)
        path = f"/v2/models/{ENDPOINT}/infer"
        status, answered, body = await call(worker, "POST", path, headers, self.flights.request(index))
        if status != 200:
            self.failed += 1
            return None
        await _copies_to_end()
        probability = orjson.loads(body)["outputs"][0]["data"][0]
        token = answered[b"x-gateway-decision"].decode()
        return {"decision": token, "metric": "brier", "value": self.posts(self.flights, index, probability)}

    def result(self, seconds: float) -> dict[str, Any]:
        """The ending, in the words of `gateway demo --json`."""
        status = self.node.status
        champion, challenger = status["experiment"]["report"]["assigned"]
        decision = self.node.control.controller.ledger()[-1]
        return {
            "decision": ENDINGS.get(status["status"], status["status"]),
            "stage": decision.body["from"]["stage"],
            "units": champion + challenger,
            "challenger_units": challenger,
            "harmed_share": round(challenger / (champion + challenger), 6),
            "champion": status["champion"],
            "split": status["split"],
            "reason": decision.body["reason"],
            "failed_requests": self.failed,
            "seconds": round(seconds, 2),
        }


_JSON = [(b"content-type", b"application/json")]


async def _copies_to_end() -> None:
    """Shadow copies are the only tasks beside the driver's own."""
    if copies := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(copies, timeout=10)


@lru_cache(maxsize=1)
def _flights(seed: int) -> replay.Flights:
    return replay.load(assets() / "models" / "flight_delay" / "replay.npz", seed)


async def play(scenario: str, seed: int, folder: Path, *, workers: int = 2, kill_after: int = 0) -> dict[str, Any]:
    """A scenario from the first flight to a while after the decision. With `kill_after`, the control process dies
    and starts again after every so many blocks."""
    began = time.perf_counter()
    node = Node(write_config(SCENARIOS[scenario], folder))
    try:
        await node.start(workers)
        run = Run(node, _flights(seed), seed)
        for number, first in enumerate(range(0, len(run.flights), BLOCK), 1):
            await run.block(first)
            if node.status["status"] != "running":
                break
            if kill_after and number % kill_after == 0:
                node.kill_control()
        before = run.sent
        await run.block(0, BLOCK // 2)  # the split has moved; the users do not notice
        run.sent = before
        return run.result(time.perf_counter() - began) | {"evidence": evidence_of(node)}
    finally:
        await node.stop()


async def release(config: Path, seed: int, *, posts: Callable[..., float] = squared_error, most: int = 16_000) -> Node:
    """A config's experiment until it ends, or its watch does; the node is stopped by the caller."""
    node = Node(config)
    await node.start(2)
    run = Run(node, _flights(seed), seed, posts)
    for first in range(0, most, BLOCK):
        await run.block(first)
        if not node.collecting:
            break
    return node


def evidence_of(node: Node) -> dict[str, bytes]:
    """Every state of the experiment's evidence, as stored."""
    return node.control.store.evidence(node.status["experiment"]["id"])


def run_scenario(scenario: str, seed: int) -> dict[str, Any]:
    """One run in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="gateway-run-") as folder:
        result = asyncio.run(play(scenario, seed, Path(folder)))
    del result["evidence"]
    return result
