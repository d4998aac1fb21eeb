"""Does a request cost the same whatever else grows: connections, endpoints, segments, units, requests served?

The proxied request of `bench_proxy`, everything on, one worker and the control process on one core. Each figure is
that of a gateway started for it. Memory is that of one gateway over `--requests` requests.

`make peers` first (for nginx and wrk), then `python -m benchmarks.bench_flat --json`: about twelve minutes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click

from benchmarks import servers
from benchmarks.bench_proxy import ANSWER, BODY
from benchmarks.bench_tables import flat_table
from benchmarks.gateway_server import ORIGINS, Gateway, experiment, gateway, settled
from benchmarks.load import USERS, Traffic, wrk
from benchmarks.processes import Tree
from benchmarks.rounds import Figures, Rounds, Subjects, command, say
from benchmarks.servers import Upstreams
from benchmarks.stats_common import Measured

NAME = "flat"
CONNECTIONS, ENDPOINTS, VALUES = (1, 8, 32, 128, 512), (1, 20, 200), (1, 10, 50)
USUAL = "connections 32"  # what the others are compared with: one endpoint, one segment of three values, known users
FLAT = 1.25  # limit of this file's own: cost at the far end over the usual cost
GROWTH = 1.05  # and of resident memory after all requests over that after half of them
IDLE = 2.0  # seconds
TENTHS = 10


class Bench:
    """One pair of upstreams; a gateway of its own for every figure."""

    def __init__(self, folder: Path, up: Upstreams, seconds: int, requests: int) -> None:
        self._folder = folder
        self._up = up
        self._seconds = seconds
        self._requests = requests

    def subjects(self) -> Subjects:
        one = self._endpoints(1)
        every_request = {"score-0": {**one["score-0"], "unit": "request"}}
        return {
            **{f"connections {n}": partial(self.cost, one, connections=n) for n in CONNECTIONS},
            **{f"endpoints {n}": partial(self.cost, self._endpoints(n)) for n in ENDPOINTS[1:]},
            **{f"values {n}": partial(self.cost, self._segmented(1, n)) for n in VALUES},
            "segments 8": partial(self.cost, self._segmented(8, 3)),
            "units new": partial(self.cost, every_request),
            "memory": partial(self.memory, one),
        }

    def cost(self, endpoints: Mapping[str, Any], connections: int = 32) -> Figures:
        with self._serving(endpoints) as (own, traffic):
            _know_all(traffic)
            idle = _idle(own.tree)
            figures = settled(own, partial(wrk, traffic, connections, self._seconds))
        return {**figures, **idle}

    def memory(self, endpoints: Mapping[str, Any]) -> Figures:
        """Resident MB by part after each tenth of the requests."""
        figures: Figures = {}
        with self._serving(endpoints) as (own, traffic):
            sent = 0
            for tenth in range(1, TENTHS + 1):
                while sent < self._requests * tenth / TENTHS:
                    sent += wrk(traffic, 32, self._seconds).requests
                own.settle(0, sent)
                resident = own.tree.rss_mb()
                figures |= {f"mb_{part}_{tenth}": mb for part, mb in resident.items()}
                told = ", ".join(f"{part} {mb:.1f} MB" for part, mb in resident.items())
                say(f"memory: {sent:,} of {self._requests:,} requests: {told}")
        return {"requests": sent, **figures}

    @contextmanager
    def _serving(self, endpoints: Mapping[str, Any]) -> Iterator[tuple[Gateway, Traffic]]:
        paths = [f"/{name}/rank" for name in endpoints]
        with gateway(self._folder, endpoints, paths[-1], BODY) as own:
            headers = {"x-origin": ORIGINS, **{f"x-segment-{k}": [f"v{n}" for n in range(50)] for k in range(8)}}
            yield own, Traffic.write(self._folder, own.url, BODY, paths, headers)

    def _endpoints(self, count: int) -> dict[str, Any]:
        a, b = {"url": self._up.a}, {"url": self._up.b}
        return {f"score-{n}": experiment("http", a, b, id=f"b-vs-a-{n}") for n in range(count)}

    def _segmented(self, count: int, values: int) -> dict[str, Any]:
        """One endpoint with so many segments of so many values."""
        segments = {
            f"segment-{k}": {"from": f"header:x-segment-{k}", "values": [f"v{n}" for n in range(values)]}
            for k in range(count)
        }
        return {name: {**one, "segments": segments} for name, one in self._endpoints(1).items()}


def _know_all(traffic: Traffic) -> None:
    """Until every user was there once."""
    sent = 0
    while sent < USERS:
        sent += wrk(traffic, 32, 1).requests


def _idle(tree: Tree) -> Figures:
    """Share of the core, in percent, that each part takes without traffic."""
    time.sleep(1.0)  # what the warm-up left is folded
    before = tree.cpu_us()
    time.sleep(IDLE)
    after = tree.cpu_us()
    return {f"idle_percent_{part}": (after[part] - before.get(part, 0.0)) / IDLE / 1e4 for part in after}


def goals(rounds: Rounds) -> Iterator[Measured]:
    """Flat in everything that grows."""
    count = len(rounds.of(USUAL))
    for name in ("connections 512", "endpoints 200", "values 50", "segments 8"):
        cost = rounds.ratio(name, "cpu_us", USUAL)
        yield Measured(NAME, f"CPU per request at {name} over that at {USUAL}", cost, FLAT, count)
    for part in ("workers", "control"):
        grown = rounds.ratio("memory", f"mb_{part}_{TENTHS}", "memory", of=f"mb_{part}_{TENTHS // 2}")
        requests = rounds.median("memory", "requests")
        what = f"memory, {part}: after {requests:,.0f} requests over half of them"
        yield Measured(NAME, what, grown, GROWTH, 1)


@contextmanager
def subjects(folder: Path, seconds: int, requests: int) -> Iterator[Subjects]:
    with servers.upstreams(folder, ANSWER % "a", ANSWER % "b") as up:
        yield Bench(folder, up, seconds, requests).subjects()


main = command(
    NAME,
    subjects,
    goals,
    flat_table,
    compared=(USUAL, "connections 512", "endpoints 200", "values 50", "segments 8", "memory"),
    rounds=3,
    once=("memory",),
    sizes=[click.Option(["--requests"], default=1_000_000, show_default=True, help="Requests of the memory run.")],
)

if __name__ == "__main__":
    main()
