"""What there is when many share: a champion beside a challenger that takes a whole core, and the metrics of fifty
experiments. A part of `prove`.

The champion is asked at a steady rate, in alternating pairs with and without the challenger, whose model computes all
the time; the worker has both cores, as it would have them. Latencies are taken from when each request was due.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.bench_onnx import ENDPOINT, FLIGHT, LOGISTIC, PATH, body
from benchmarks.gateway_server import Gateway, experiment, gateway
from benchmarks.load import Traffic, wrk
from benchmarks.processes import LOAD_CORE, SERVER_CORE
from benchmarks.results_file import ROOT, Case
from benchmarks.sampling import worker_of
from benchmarks.slow_client import post, send_steadily
from benchmarks.stats_common import Measured
from gateway.assignment.hashing import bucket, salt_key
from gateway.assignment.ranges import owner
from gateway.control_plane import ControlPlane
from gateway.plan import decode
from tests.faults.fifty import estimate_all, fifty_experiments
from tests.unit.backends import tiny_onnx

NAME = "crowded"
CODE = ("gateway/**/*.py", "benchmarks/crowded.py", "benchmarks/slow_client.py", "tests/faults/fifty.py")
ROUNDS = 3
SECONDS = 6  # of a measurement
RATE = 200.0  # requests of the champion per second
BUSY = 3  # clients that wait for the challenger: it always has something to compute
LONG = body("features", "FP32", [2e-8] * tiny_onnx.FEATURES)  # a hang cut short: 20,000 rounds of a loop
USERS = 1_000
LOOKS = 9  # at the metrics
FACTOR = 2.0  # p99 beside the challenger over p99 without
SHARE = 0.9  # of a core that the challenger takes
MILLISECONDS, MIB = 100, 5  # of the metrics
METRICS = "metrics of fifty experiments"


def keys() -> list[str]:
    """Pairs of measurements, the second of a round in the other order, and the metrics."""
    sides = ("alone", "beside")
    pairs = [(number, side) for number in range(1, ROUNDS + 1) for side in (sides if number % 2 else sides[::-1])]
    return [*(f"champion/{number}/{side}" for number, side in pairs), METRICS]


@contextmanager
def bench() -> Iterator[Callable[[str], Case]]:
    """What measures a case, by its key: one gateway with one worker, for all of them."""
    with tempfile.TemporaryDirectory(prefix="crowded-") as name:
        folder = Path(name)
        busy = tiny_onnx.hanging(folder / "busy.onnx")
        a, b = ({"onnx": str(path), "timeout": "10s"} for path in (LOGISTIC, busy))
        served = {ENDPOINT: experiment("oip", a, {**b, "max_batch": 1})}  # or none would wait while one runs
        roots = [str(LOGISTIC.parent), str(folder)]
        os.environ["PYTHONPATH"] = str(ROOT)  # what is measured is this tree, wherever its environment lies
        both = f"{SERVER_CORE},{LOAD_CORE}"
        with gateway(folder, served, PATH, FLIGHT, cores=both, model_roots=roots) as own:
            yield lambda key: asyncio.run(_metrics()) if key == METRICS else _champion(own, folder, key)


def _champion(own: Gateway, folder: Path, key: str) -> Case:
    asked = [post(PATH, user, FLIGHT) for user in _users(own, "a")]
    if key.endswith("alone"):
        return _asked(own, asked)
    traffic = Traffic(own.url, folder / "body", folder / "targets")
    traffic.body.write_bytes(LONG)
    traffic.targets.write_text("".join(f"{PATH}\tx-user-id: {user}\n" for user in _users(own, "b")))
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(wrk, traffic, BUSY, SECONDS + 3)
        time.sleep(1.5)
        figures = _asked(own, asked)
        return {**figures, "challenger_requests": load.result().requests}


def _asked(own: Gateway, requests: list[bytes]) -> Case:
    worker = worker_of(own.tree)
    before = _models_used(worker)
    seen = send_steadily(own.url, requests, RATE, SECONDS)
    every, after = seen.between(0, SECONDS), _models_used(worker)
    return {
        "requests": len(every),
        "not_200": seen.failed,
        "p50_ms": statistics.median(every),
        "p99_ms": statistics.quantiles(every, n=100)[98],
        "max_ms": max(every),
        "busiest_thread": max(used - before.get(thread, 0.0) for thread, used in after.items()) / SECONDS,
    }


def _models_used(worker: int) -> dict[str, float]:
    """Seconds of the processor by thread, without the one that has the connections."""
    used = {}
    for task in Path(f"/proc/{worker}/task").iterdir():
        if task.name != str(worker):
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            used[task.name] = sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
    return used


def _users(own: Gateway, variant: str) -> list[str]:
    """Users whom the plan gives to the variant."""
    (endpoint,) = decode((own.store.parent / "plan.json").read_bytes()).endpoints
    key, names = salt_key(endpoint.salt), [f"user-{n}" for n in range(USERS)]
    return [name for name in names if owner(endpoint.slots, bucket(key, name.encode())) == variant]


async def _metrics() -> Case:
    """How long `/metrics` takes to write, in this process, and how much that is; first without estimates."""
    with tempfile.TemporaryDirectory(prefix="crowded-") as name:
        async with fifty_experiments(Path(name)) as (plane, _):
            early = await asyncio.to_thread(partial(_written, plane))
            estimate_all(plane)
            return {"without_estimates": early, "with_estimates": await asyncio.to_thread(partial(_written, plane))}


def _written(plane: ControlPlane) -> Case:
    took, size = [], 0
    for _ in range(LOOKS):
        began = time.perf_counter()
        size = len(plane.exposition("")[0])
        took.append(1e3 * (time.perf_counter() - began))
    return {"median_ms": statistics.median(took), "slowest_ms": max(took), "mib": size / 2**20}


def goals(cases: dict[str, Case]) -> Iterator[Measured]:
    """What was promised, of all rounds."""
    pairs = [(cases[f"champion/{n}/beside"], cases[f"champion/{n}/alone"]) for n in range(1, ROUNDS + 1)]
    ratio = statistics.median(one["p99_ms"] / other["p99_ms"] for one, other in pairs)
    yield Measured(
        NAME, "champion's p99 beside a challenger that takes a core, over that without", ratio, FACTOR, ROUNDS
    )
    share = statistics.median(one["busiest_thread"] for one, _ in pairs)
    yield Measured(NAME, "share of a core that the challenger took", share, SHARE, ROUNDS, at_least=True)
    failed = sum(one["not_200"] for pair in pairs for one in pair)
    yield Measured(NAME, "requests of the champion not answered 200", failed, 0, ROUNDS)
    for name, when in (
        ("without_estimates", "before anything is estimated"),
        ("with_estimates", "with every estimate"),
    ):
        written = cases[METRICS][name]
        yield Measured(NAME, f"milliseconds that {METRICS} take, {when}", written["median_ms"], MILLISECONDS, LOOKS)
    yield Measured(NAME, f"MiB of the {METRICS}", cases[METRICS]["with_estimates"]["mib"], MIB, 1)
