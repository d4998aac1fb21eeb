"""Does an edit of the config, or a promotion, cost a request? Does it move a user whom it does not concern?

Users who return ask all the time, at a steady rate, while the config is edited and challengers are promoted by hand.
The two models never agree, so every answer says who gave it, and that must be whom the split in force names. An answer
that was under way while a change was may come from before or after it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import uvloop

from benchmarks.processes import BenchmarkError, running
from benchmarks.results_file import ROOT, Case
from gateway.assignment.hashing import bucket, salt_key
from gateway.assignment.ranges import owner
from gateway.backends.onnx import load
from gateway.cli.client import Admin, AdminError
from gateway.config.load import digest_of
from gateway.plan import decode

MODELS = ROOT / "models" / "flight_delay"
ENDPOINT = "score"
FLIGHT = [8, 30, 2, 9, 1400, 0, 0, 70, 55, 60, 180, 8, 0, 0, 1016, 10]
USERS, CONNECTIONS = 200, 16
IN_FORCE = 60.0  # seconds within which a change must be served by every worker
CALM = 0.5  # seconds between two changes, in which there is no doubt
TICK = 0.01  # seconds by which time stamps of files may lag
_LENGTH = re.compile(rb"content-length: (\d+)")
_ANSWER = re.compile(rb'"data":\[([^\]]+)\]')
Connected = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Split(NamedTuple):
    """Who answered whom, from a change on; times as of `time.monotonic`."""

    begun: float  # before that nobody could have it: its plan was not written
    in_force: float  # from then on every worker has it
    concerns: bool  # whether the change is about this endpoint
    variants: tuple[str, ...]  # by user


class Answer(NamedTuple):
    sent: float
    came: float
    user: int
    variant: str


@dataclass(slots=True)
class Load:
    """Requests at a steady rate over connections that stay open."""

    port: int
    rate: int
    named: dict[float, str]  # variants by what their model answers
    answers: list[Answer] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    async def run(self) -> None:
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(self._connection(began) for _ in range(CONNECTIONS)))

    async def _connection(self, began: float) -> None:
        connected: Connected | None = None
        try:
            while True:
                number = next(self._numbers)
                await asyncio.sleep(began + number / self.rate - asyncio.get_running_loop().time())
                try:
                    connected = connected or await asyncio.open_connection("127.0.0.1", self.port)
                    await self._ask(*connected, number % USERS)
                except (OSError, EOFError) as error:
                    self.failed.append(repr(error))
                    if connected is not None:
                        connected[1].close()
                    connected = None
        finally:
            if connected is not None:
                connected[1].close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, user: int) -> None:
        sent = time.monotonic()
        writer.write(_request(user))
        head = await reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        body = await reader.readexactly(int(length[1]) if length else 0)
        found = _ANSWER.search(body)
        variant = self.named.get(float(np.float32(found[1]))) if found and head.startswith(b"HTTP/1.1 200") else None
        if variant is None:
            self.failed.append(f"{head[:40]!r} {body[:100]!r}")
            return
        self.answers.append(Answer(sent, time.monotonic(), user, variant))


@dataclass(slots=True)
class Node:
    """The gateway, its config as it is now, and what every change made of the split."""

    config: Path
    document: dict[str, Any]
    splits: list[Split] = field(default_factory=list)
    changes: int = 0  # that are in force
    _admin: Admin | None = None

    @property
    def admin(self) -> Admin:
        self._admin = self._admin or Admin.of_config(self.config)
        return self._admin

    def write(self) -> str:
        text = json.dumps(self.document, indent=1)
        whole = self.config.with_suffix(".new")
        whole.write_text(text)
        whole.replace(self.config)
        return digest_of(text.encode())

    def change(self, number: int) -> None:
        """An edit that is about something else, or a promotion, in turn; until it is in force."""
        other = self.document["endpoints"]["other"]
        if number % 2:
            self._promote()
        elif number % 6 == 0:
            other["variants"]["logistic"]["timeout"] = f"{1000 + number}ms"
        elif number % 6 == 2:
            other["metrics"]["brier"]["window"] = f"{60 + number}m"
        else:
            self._extra()
        self.edit(concerns=bool(number % 2))
        self.changes += 1

    def edit(self, *, concerns: bool) -> None:
        digest = self.write()
        self._await(lambda status: status["config"]["digest"] == digest, concerns)

    def _extra(self) -> None:
        """An endpoint comes, whose model has to be loaded; the next time it goes."""
        endpoints = self.document["endpoints"]
        if endpoints.pop("extra", None) is None:
            endpoints["extra"] = {"protocol": "oip", "variants": {"twin": _model("twin", "champion")}}

    def _promote(self) -> None:
        """By hand; and the file is made to say so, in an experiment that goes the other way."""
        endpoint = self.document["endpoints"][ENDPOINT]
        self.admin.command(ENDPOINT, "promote", "bench", "")
        self._await(lambda status: status["endpoints"][ENDPOINT]["status"] == "promoted", True)
        for variant in endpoint["variants"].values():
            variant["role"] = "challenger" if variant["role"] == "champion" else "champion"
        endpoint["experiment"]["id"] = f"run-{len(self.splits)}"

    def _await(self, taken: Callable[[dict[str, Any]], bool], concerns: bool) -> None:
        deadline, status = time.monotonic() + IN_FORCE, self.admin.status()
        while not (taken(status) and _in_force(status)):
            if time.monotonic() > deadline:
                raise BenchmarkError(f"not in force within {IN_FORCE:.0f} s: {status['config']}")
            time.sleep(0.05)
            status = self.admin.status()
        file = self.config.parent / "data" / "plan.json"
        now, age = time.monotonic(), time.time() - file.stat().st_mtime
        self.splits.append(Split(now - age - TICK, now, concerns, _variants(file)))
        time.sleep(CALM)


def measure(folder: Path, changes: int, rate: int) -> Case:
    """So many changes under so many requests a second."""
    config = folder / "gateway.yaml"
    node = Node(config, _document())
    node.write()
    command = [sys.executable, "-m", "gateway.cli", "serve", "--config", str(config), "--shutdown-delay", "0.2"]
    here = {"PYTHONPATH": str(ROOT)}  # whatever is installed
    with running("gateway", command, folder, partial(_ready, node), environment=here):
        began = time.monotonic()
        node.edit(concerns=True)  # as it is: the first split
        load = uvloop.run(_under_load(node, changes, rate))
        seconds = round(time.monotonic() - began)
        return {"rate": rate, "changes": node.changes, "seconds": seconds, **_judged(node, load)}


async def _under_load(node: Node, changes: int, rate: int) -> Load:
    port = int(json.loads((node.config.parent / "data" / "node.json").read_bytes())["data"].rsplit(":", 1)[1])
    load = Load(port, rate, {await _answers(name): name for name in ("logistic", "boosted")})
    await beside(load.run(), node.change, changes)
    return load


async def beside(load: Coroutine[Any, Any, None], change: Callable[[int], None], changes: int) -> None:
    """So many changes while the load, which has no end, goes on. Raises BenchmarkError if it has one."""
    traffic = asyncio.create_task(load)
    for number in range(changes):
        await asyncio.to_thread(change, number)
        if traffic.done():
            break
    traffic.cancel()
    await asyncio.wait([traffic])
    if not traffic.cancelled():
        raise BenchmarkError(f"the load has ended: {traffic.exception()!r}") from traffic.exception()


def _judged(node: Node, load: Load) -> Case:
    """Every answer against the splits that could have been in force; a user against the change before."""
    ends = [*(split.in_force for split in node.splits[1:]), float("inf")]
    wrong = certain = first = 0
    waits = sorted(answer.came - answer.sent for answer in load.answers)
    for answer in sorted(load.answers):
        while ends[first] < answer.sent:  # replaced everywhere before it was sent
            first += 1
        could = list(itertools.takewhile(lambda split: split.begun <= answer.came, node.splits[first:]))  # noqa: B023
        certain += len(could) == 1
        wrong += all(split.variants[answer.user] != answer.variant for split in could)
    pairs = list(itertools.pairwise(node.splits))
    return {
        "requests": len(load.answers) + len(load.failed),
        "failed": len(load.failed),
        "failures": load.failed[:5],
        "certain": certain,
        "by_another_variant": wrong,
        "moved_by_unrelated_edits": sum(a.variants != b.variants for a, b in pairs if not b.concerns),
        "promotions": sum(len(set(split.variants)) == 1 for split in node.splits),
        "median_ms": round(1e3 * statistics.median(waits), 2),
        "p99_ms": round(1e3 * waits[int(0.99 * len(waits))], 2),
        "slowest_ms": round(1e3 * waits[-1], 1),
    }


async def _answers(name: str) -> float:
    model = load(MODELS / f"{name}.onnx", "")
    try:
        row = {"features": np.array([FLIGHT], np.float32)}
        (probability,) = await model.infer(row, asyncio.get_running_loop().time() + 10)
        return float(probability[0, 0])
    finally:
        model.close()


def _in_force(status: dict[str, Any]) -> bool:
    served = {worker["plan_revision"] for worker in status["workers"]}
    return served == {status["plan_revision"]} and not any(one["preparing"] for one in status["endpoints"].values())


def _variants(plan: Path) -> tuple[str, ...]:
    (endpoint,) = (one for one in decode(plan.read_bytes()).endpoints if one.name == ENDPOINT)
    key = salt_key(endpoint.salt)
    return tuple(owner(endpoint.slots, bucket(key, _name(user))) for user in range(USERS))


def _ready(node: Node) -> bool:
    try:
        status = node.admin.status()
    except AdminError:
        return False
    return len(status["workers"]) == 2 and _in_force(status)


def _name(user: int) -> bytes:
    return b"user-%d" % user


def _request(user: int) -> bytes:
    tensor = {"name": "features", "datatype": "FP32", "shape": [1, len(FLIGHT)], "data": FLIGHT}
    body = json.dumps({"inputs": [tensor]}).encode()
    head = b"POST /v2/models/%s/infer HTTP/1.1\r\nhost: x\r\nx-user-id: %s\r\ncontent-length: %d\r\n\r\n"
    return head % (ENDPOINT.encode(), _name(user), len(body)) + body


def _document() -> dict[str, Any]:
    brier = {"type": "bounded", "bounds": [0, 1], "direction": "decrease", "source": "outcome", "window": "1h"}
    return {
        "version": 1,
        "data": {"listen": "127.0.0.1:0", "workers": 2},
        "admin": {"listen": "127.0.0.1:0"},
        "metrics": {"listen": "127.0.0.1:0"},
        "data_dir": "data",
        "model_roots": [str(MODELS)],
        "endpoints": {
            ENDPOINT: {
                "protocol": "oip",
                "unit": {"from": "header:x-user-id", "otherwise": "request"},
                "variants": {
                    "logistic": _model("logistic", "champion"),
                    "boosted": _model("boosted", "challenger"),
                },
                "metrics": {"brier": dict(brier)},
                "experiment": {
                    "id": "run-0",
                    "objective": {"metric": "brier", "min_effect": 0.01},
                    "stages": [{"traffic": "40%"}],
                    "automation": "off",
                },
            },
            "other": {
                "protocol": "oip",
                "variants": {"logistic": _model("logistic", "champion")},
                "metrics": {"brier": dict(brier)},
            },
        },
    }


def _model(name: str, role: str) -> dict[str, Any]:
    return {"role": role, "onnx": str(MODELS / f"{name}.onnx")}
