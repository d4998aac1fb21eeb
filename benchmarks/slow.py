"""A thousand slow clients beside a usual one: slowhttptest against the data port. A part of `prove`.

Slow heads (-H), slow bodies (-B) and slow readers (-X), each in alternating pairs: the usual client sends at a steady
rate, once with the slow ones and once without, and its latencies are taken from when each request was due. Besides,
one run of each kind without the usual client, as long as it takes the gateway to close all: slowhttptest's own count
of open connections, second by second, says when that was.

`apt-get install slowhttptest`, or `make peers`, which does it.
"""

from __future__ import annotations

import csv
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gateway_server import Gateway, experiment, gateway
from benchmarks.processes import LOAD_CORE, BenchmarkError, answers, free_port, running
from benchmarks.results_file import ROOT, Case
from benchmarks.sampling import held, in_flight, worker_of
from benchmarks.slow_client import Seen, post, send_steadily
from benchmarks.stats_common import Measured

NAME = "slow"
CODE = ("gateway/**/*.py", "benchmarks/slow*.py", "benchmarks/soak_upstream.py", "benchmarks/sampling.py")
SLOW = 1_000  # clients
SECONDS = 14  # of a measurement: the thousand come within two seconds
STANDING = 3.0, 9.0  # when all of them are there, and none is closed yet
RATE = 150.0  # usual requests per second
USUAL = [post("/score/rank", f"user-{user}", b'{"q": 1}') for user in range(1_000)]
AFTER = 8.0  # seconds that idle connections to upstreams take to go
FACTOR = 2.0  # p99 with the slow clients over p99 without
LATE = 5  # seconds: coming takes two, slowhttptest looks once a second, and closing takes the gateway two


@dataclass(frozen=True, slots=True)
class Kind:
    """How clients are slow, and how long the gateway has patience with that."""

    flags: tuple[str, ...]
    path: str
    deadline: int  # seconds until all are closed
    watched: int  # seconds that the run without the usual client takes at most
    judged: str = "all_closed_s"  # what the deadline is of
    beside: bool = True  # whether the usual client is measured beside these


KINDS = {
    "heads": Kind(("-H", "-i", "4", "-x", "24", "-t", "GET"), "/score/rank", 10, 40),
    # A piece, and then nothing for longer than the deadline.
    "bodies": Kind(("-B", "-i", "60", "-x", "24", "-s", "8192"), "/score/rank", 30, 60),
    # Something every five seconds, until the least rate ends it: 1 KiB/s after the first 30 seconds of waiting. Twenty
    # bytes each time earn less than the second that is added here.
    "dripping bodies": Kind(("-B", "-i", "5", "-x", "8", "-s", "8192"), "/score/rank", 31, 60, beside=False),
    # The kernel goes on sending what it has taken, so slowhttptest sees no end for as long as that takes.
    "readers": Kind(
        ("-X", "-n", "5", "-z", "32", "-w", "512", "-y", "1024"), "/score/large", 30, 50, judged="none_in_flight_s"
    ),
}


def keys(rounds: int) -> list[str]:
    """Pairs of measurements, the second of a round in the other order, and the watched run of each kind."""
    made = []
    for kind, slow in KINDS.items():
        for number in range(1, rounds + 1 if slow.beside else 1):
            pair = ("without", "with") if number % 2 else ("with", "without")
            made += [f"{kind}/{number}/{side}" for side in pair]
        made.append(f"{kind}/watched")
    return made


@contextmanager
def bench() -> Iterator[Callable[[str], Case]]:
    """What measures a case, by its key: one gateway with one worker, for all of them."""
    if shutil.which("slowhttptest") is None:
        raise BenchmarkError("slowhttptest is not installed: run `make peers`")
    with tempfile.TemporaryDirectory(prefix="slow-") as name:
        folder = Path(name)
        ports = [free_port(), free_port()]
        upstream = [sys.executable, "-m", "benchmarks.soak_upstream", *(f"--port={port}" for port in ports)]
        a, b = ({"url": f"http://127.0.0.1:{port}", "idempotent": True} for port in ports)
        up = answers(f"http://127.0.0.1:{ports[1]}/")
        os.environ["PYTHONPATH"] = str(ROOT)  # what is measured is this tree, wherever its environment lies
        with (
            running("upstream", upstream, folder, up, cores=str(LOAD_CORE)),
            gateway(folder, {"score": experiment("http", a, b)}, "/score/rank", b"{}") as own,
        ):
            yield lambda key: _measure(own, folder, key)


def _measure(own: Gateway, folder: Path, key: str) -> Case:
    kind, _, side = key.partition("/")
    slow = KINDS[kind]
    if side == "watched":
        return _watched(own, folder, slow)
    if side.endswith("without"):
        return _figures(own, send_steadily(own.url, USUAL, RATE, SECONDS))
    with _slow_clients(own, folder, slow, SECONDS + 20) as running_one:
        seen = send_steadily(own.url, USUAL, RATE, SECONDS)
        figures = _figures(own, seen)
        running_one.terminate()
    return {**figures, "connected": max(row["Connected"] for row in _rows(folder))}


def _figures(own: Gateway, seen: Seen) -> Case:
    every = seen.between(0, SECONDS)
    return {
        "requests": len(every),
        "not_200": seen.failed,
        "p50_ms": statistics.median(every),
        "p99_ms": statistics.quantiles(every, n=100)[98],
        "p99_standing_ms": statistics.quantiles(seen.between(*STANDING), n=100)[98],
        "max_ms": max(every),
        "worker": held(worker_of(own.tree)),
    }


def _watched(own: Gateway, folder: Path, slow: Kind) -> Case:
    """Slow clients alone until all are closed, or the time is over; what the worker holds meanwhile."""
    worker = worker_of(own.tree)
    before, meanwhile = held(worker), []
    with _slow_clients(own, folder, slow, slow.watched) as running_one:
        while running_one.poll() is None:
            time.sleep(1.0)
            meanwhile.append({**held(worker), "in_flight": in_flight(own.store.parent)})
    time.sleep(AFTER)
    rows = _rows(folder)
    most = max(row["Connected"] for row in rows)
    full = next(row["Seconds"] for row in rows if row["Connected"] == most)
    shrinking = next((row["Seconds"] for row in rows if row["Seconds"] > full and row["Connected"] < most), None)
    # It ends when the last connection does, and does not count that second any more.
    gone = rows[-1]["Seconds"] + 1 if "No open connections left" in (folder / "slowhttptest.log").read_text() else None
    return {
        "connected": most,
        "first_closed_s": shrinking,
        "all_closed_s": gone,
        "none_in_flight_s": _none_in_flight(meanwhile),
        "available": all(row["Service Available"] for row in rows),
        "held_before": before,
        "held_at_the_end": held(worker),
        "held": meanwhile,
        "rows": rows,
    }


def _none_in_flight(meanwhile: list[Case]) -> int | None:
    """The second in which the last request ended; None if there was none, or it did not."""
    busy = [second for second, one in enumerate(meanwhile, start=1) if one["in_flight"]]
    return None if not busy or busy[-1] == len(meanwhile) else busy[-1] + 1


@contextmanager
def _slow_clients(own: Gateway, folder: Path, slow: Kind, seconds: int) -> Iterator[subprocess.Popen[bytes]]:
    for path in folder.glob("slow.*"):
        path.unlink()
    # Its own busy loop must not be what the usual client waits for: both are on one core.
    command = ["nice", "-n", "19", "taskset", "-c", str(LOAD_CORE), "slowhttptest", *slow.flags]
    command += ["-c", str(SLOW), "-r", str(SLOW // 2), "-l", str(seconds), "-p", "3"]
    command += ["-g", "-o", "slow", "-v", "1", "-u", own.url + slow.path]
    with (folder / "slowhttptest.log").open("wb") as output:
        started = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield started
    finally:
        started.terminate()
        with suppress(subprocess.TimeoutExpired):
            started.wait(10)
        started.kill()
        started.wait()


def _rows(folder: Path) -> list[dict[str, int]]:
    """slowhttptest's table: connections by state, second by second, and whether a usual request was answered."""
    with (folder / "slow.csv").open(newline="") as file:
        rows = [{name.strip(): int(value) for name, value in row.items()} for row in csv.DictReader(file)]
    if not rows:
        raise BenchmarkError("slowhttptest has counted nothing")
    return rows


def goals(cases: dict[str, Case], rounds: int) -> Iterator[Measured]:
    """What was promised, of all rounds."""
    for kind, slow in KINDS.items():
        if slow.beside:
            yield from _beside(kind, cases, rounds)
        gone = cases[f"{kind}/watched"][slow.judged]
        what = f"seconds until all slow {kind} are {'closed' if slow.judged == 'all_closed_s' else 'given up'}"
        yield Measured(NAME, what, float("inf") if gone is None else gone, slow.deadline + LATE, 1)
        left = cases[f"{kind}/watched"]["held_at_the_end"]["descriptors"]
        before = cases[f"{kind}/watched"]["held_before"]["descriptors"]
        yield Measured(NAME, f"descriptors of the worker after slow {kind} (before {before})", left, before + 5, 1)


def _beside(kind: str, cases: dict[str, Case], rounds: int) -> Iterator[Measured]:
    pairs = [(cases[f"{kind}/{n}/with"], cases[f"{kind}/{n}/without"]) for n in range(1, rounds + 1)]
    for figure, when in (("p99_ms", "come, stand and go"), ("p99_standing_ms", "stand")):
        ratio = statistics.median(one[figure] / other[figure] for one, other in pairs)
        what = f"usual client's p99 while {SLOW:,} slow {kind} {when}, over that without"
        yield Measured(NAME, what, ratio, FACTOR, rounds)
    refused = sum(one["not_200"] for one, _ in pairs)
    yield Measured(NAME, f"usual requests not answered 200 beside slow {kind}", refused, 0, rounds)
    fewest = min(one["connected"] for one, _ in pairs)
    yield Measured(NAME, f"slow {kind} open at once", fewest, 0.9 * SLOW, rounds, at_least=True)
