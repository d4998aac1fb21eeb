"""A real worker driven in process: plan file in, ASGI calls through, facts and counters out. No server, no sleeps."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from gateway import plan as plans
from gateway.assignment.hashing import bucket
from gateway.assignment.ranges import origin, resize, whole, width
from gateway.backends.onnx import digest
from gateway.clock import FakeClock
from gateway.events import Assignment, Completion, Fact, Heartbeat, Outcome, Rejection, Shadow, UnitOutcome
from gateway.plan import EndpointPlan, MetricPlan, Plan, SegmentPlan, SigningKey, VariantPlan
from gateway.spool.format import Position, Stream
from gateway.spool.reader import StreamId, discover, read
from gateway.telemetry.status_page import Word, read_page
from gateway.worker import Worker

MODELS = Path(__file__).parents[3] / "models" / "flight_delay"
FLIGHT = [8, 30, 2, 9, 1400, 0, 0, 70, 55, 60, 180, 8, 0, 0, 1016, 10]
KEY = SigningKey(id=1, secret="11" * 32)
PEPPER = "22" * 32
INFER = "/v2/models/flight/infer"
Kept = TypeVar("Kept", Assignment, Completion, Shadow, Outcome, UnitOutcome, Rejection, Heartbeat)


def onnx(name: str, role: plans.Role, path: Path, timeout: float = 5.0) -> VariantPlan:
    return VariantPlan(name=name, role=role, timeout=timeout, onnx=str(path), digest=digest(path))


def http(name: str, role: plans.Role, *urls: str, timeout: float = 5.0, **more: Any) -> VariantPlan:
    return VariantPlan(name=name, role=role, timeout=timeout, urls=urls, **more)


def champion(name: str = "logistic", timeout: float = 5.0) -> VariantPlan:
    return onnx(name, "champion", MODELS / f"{name}.onnx", timeout)


def challenger(name: str = "boosted", timeout: float = 5.0) -> VariantPlan:
    return onnx(name, "challenger", MODELS / f"{name}.onnx", timeout)


METRICS = (
    MetricPlan(name="brier", type="bounded", source="outcome", low=0, high=1),
    MetricPlan(name="late", type="binary", source="outcome"),
    MetricPlan(name="errors", type="binary", source="gateway"),
)


def endpoint(
    *variants: VariantPlan, share: float | str = 0, name: str = "flight", protocol: plans.Protocol = "oip", **more: Any
) -> EndpointPlan:
    """The share goes to the challenger (the first, if there are several)."""
    first, *others = sorted(variants, key=lambda variant: variant.role != "champion")
    slots = whole(first.name)
    if others:
        start = {others[0].name: origin("exp-1", others[0].name)}
        slots = resize(slots, first.name, {others[0].name: width(Decimal(str(share)))}, start)
    given: dict[str, Any] = {
        "salt": "exp-1",
        "experiment": "exp-1",
        "stage": "half",
        "unit_header": "x-user-id",
        "segments": (SegmentPlan(name="origin", header="x-origin", values=("EWR", "JFK")),),
        "metrics": METRICS,
    }
    return EndpointPlan(name=name, protocol=protocol, variants=variants, slots=slots, **(given | more))


def plan(*endpoints: EndpointPlan, revision: int = 1, **more: Any) -> Plan:
    given: dict[str, Any] = {"keys": (KEY,), "pepper": PEPPER, "max_body": 1 << 20}
    return Plan(revision=revision, config_digest="d", as_of=0, endpoints=endpoints, **(given | more))


def infer_body(**more: Any) -> bytes:
    tensor = {"name": "features", "datatype": "FP32", "shape": [1, len(FLIGHT)], "data": FLIGHT}
    return json.dumps({"inputs": [tensor | more]}).encode()


@dataclass
class Reply:
    status: int
    fields: list[tuple[bytes, bytes]]
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        names = [name for name, _ in self.fields]
        assert len(names) == len(set(names)) or names.count(b"set-cookie") > 1, f"repeated: {names}"
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self.fields}

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The message, in whichever form the error has; checks that it has one of the three."""
        if self.headers["content-type"] == "application/problem+json":
            assert self.json["status"] == self.status
            assert self.json["request_id"] == self.headers["x-request-id"]
            text: str = self.json["detail"]
        elif isinstance(self.json["error"], dict):
            assert self.json["error"].keys() == {"message", "type", "param", "code"}
            text = self.json["error"]["message"]
        else:
            assert self.json.keys() == {"error"}
            text = self.json["error"]
        return text


@dataclass
class LocalWorker:
    data_dir: Path
    clock: FakeClock
    worker: Worker
    _read: dict[Any, Position] = field(default_factory=dict)
    _facts: list[Fact] = field(default_factory=list)

    async def publish(self, plan: Plan) -> None:
        """Returns when the worker has loaded what it can."""
        plans.write(self.data_dir / "plan.json", plan)
        await self.worker.poll()
        await self.loaded()

    async def loaded(self) -> None:
        while self.worker.loading:
            await asyncio.sleep(0.001)
            await self.worker.follow()

    async def request(
        self,
        method: str = "POST",
        path: str = INFER,
        body: bytes | Iterable[bytes] = b"",
        headers: Iterable[tuple[str | bytes, str | bytes]] = (),
        declare: bool = True,
    ) -> Reply:
        """As uvicorn would put it: lower-case names, raw path, body in as many messages as there are parts."""
        parts = [body] if isinstance(body, bytes) else list(body)
        raw, _, query = path.encode("latin-1").partition(b"?")
        fields = [(_raw(name).lower(), _raw(value)) for name, value in headers]
        if declare and method not in ("GET", "HEAD"):
            fields.append((b"content-length", str(sum(map(len, parts))).encode()))
        scope = {
            "type": "http",
            "method": method,
            "path": _unquote(raw),
            "raw_path": raw,
            "query_string": query,
            "headers": fields,
        }
        return await self.call(scope, parts)

    async def call(self, scope: dict[str, Any], parts: list[bytes]) -> Reply:
        messages = iter(
            [{"type": "http.request", "body": p, "more_body": i < len(parts)} for i, p in enumerate(parts, start=1)]
        )
        sent: list[Any] = []

        async def receive() -> Any:
            return next(messages, {"type": "http.disconnect"})

        async def send(message: Any) -> None:
            sent.append(message)

        await self.worker.app(scope, receive, send)
        assert [m["type"] for m in sent] == ["http.response.start", "http.response.body"]
        return Reply(sent[0]["status"], sent[0]["headers"], sent[1]["body"])

    async def infer(self, user: str = "", **more: Any) -> Reply:
        headers = [("x-user-id", user)] if user else []
        return await self.request(body=infer_body(), headers=headers, **more)

    def user_of(self, variant: str, name: str = "flight") -> str:
        """A user id that draws this variant."""
        table = self.worker.app.table
        assert table is not None
        known = table.endpoints[name]
        return next(
            user for user in map(str, itertools.count()) if known.draw(bucket(known.key, user.encode())).name == variant
        )

    def facts(self, kind: type[Kept]) -> list[Kept]:
        """Everything in both streams so far, as the control process reads it."""
        for stream in discover(self.data_dir / "spool"):
            batch = read(self.data_dir / "spool", stream, self._read.get(stream, Position()))
            assert not batch.corrupt
            self._read[stream] = batch.position
            self._facts += batch.facts
        return [fact for fact in self._facts if isinstance(fact, kind)]

    def of_stream(self, which: Stream) -> list[Fact]:
        """Everything in one stream, in its order."""
        batch = read(self.data_dir / "spool", StreamId(7, which), Position())
        assert not batch.corrupt
        return batch.facts

    def count(self, name: str, *labels: str) -> int:
        """The first slot of a series; 0 for one that does not exist."""
        values: tuple[int, ...] = self.page().series.get((name, labels), (0,))
        return values[0]

    def page(self) -> Any:
        (path,) = (self.data_dir / "status").glob("*.page")
        reading = read_page(path)
        assert reading is not None
        return reading

    def nothing_happened(self) -> None:
        """No fact, no request under way."""
        assert not self.facts(Assignment)
        assert not self.facts(Completion)
        assert not self.facts(Outcome)
        assert self.page().word(Word.IN_FLIGHT) == 0


@asynccontextmanager
async def local_worker(tmp_path: Path) -> AsyncIterator[LocalWorker]:
    for folder in ("spool", "status"):
        (tmp_path / folder).mkdir()
    clock = FakeClock()
    worker = Worker(tmp_path, 7, clock)
    try:
        yield LocalWorker(tmp_path, clock, worker)
    finally:
        await worker.close()


def _raw(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1")


def _unquote(raw: bytes) -> str:
    return unquote(raw.decode("latin-1"))


async def until(condition: Any, what: str = "") -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)
