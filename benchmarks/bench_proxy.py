"""What a proxied request costs with everything on, beside nginx, Envoy and two proxies written in Python.

The gateway runs an experiment at 80/20: keyed assignment, segments, decision tokens, both facts of every request in the
store, evidence folded, status pages. The others split and forward, and keep nothing.

`make peers` first, then `python -m benchmarks.bench_proxy --json`: about six minutes. One server at a time on one core,
wrk and the upstream (nginx, a fixed answer) on the other. CPU time is that of all processes of a server, from /proc.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import httpx

from benchmarks import servers
from benchmarks.bench_tables import proxy_table
from benchmarks.gateway_server import ORIGINS, Gateway, experiment, gateway, settled
from benchmarks.load import USERS, Traffic, loaded, wrk
from benchmarks.processes import BenchmarkError, Tree
from benchmarks.rounds import Figures, Rounds, Subjects, command
from benchmarks.servers import Upstreams
from benchmarks.stats_common import Measured

NAME = "proxy"
PATH = "/score/rank"
BODY = b'{"query": "running shoes", "candidates": [101, 102, 103, 104, 105], "locale": "de", "page": 1, "size": 20}'
ANSWER = '{"ranking": [103, 101, 105, 102, 104], "scores": [0.91, 0.84, 0.52, 0.31, 0.07], "model": "%s-1"}'
PROBES = 400  # requests by hand before the load: do the users of `b` get `b`?
CONTROL_LIMIT_US = 20.0
Started = Callable[[], AbstractContextManager[tuple[Tree, str]]]


class Bench:
    """One upstream, and every server in front of it in turn."""

    def __init__(self, folder: Path, up: Upstreams, seconds: int) -> None:
        self._folder = folder
        self._up = up
        self._seconds = seconds

    def subjects(self) -> Subjects:
        peers: dict[str, Started] = {
            "nginx": partial(servers.nginx, self._folder, self._up),
            "envoy": partial(servers.envoy, self._folder, self._up),
            "aiohttp_proxy": partial(servers.proxy, "aiohttp_proxy", self._folder, self._up),
            "httpx_proxy": partial(servers.proxy, "httpx_proxy", self._folder, self._up),
        }
        return {
            "direct": self.direct,
            "gateway": self.gateway,
            **{name: partial(self.peer, started) for name, started in peers.items()},
        }

    def direct(self) -> Figures:
        """The upstream without a proxy: what a latency is added to."""
        load = wrk(self._traffic(self._up.a), 1, self._seconds)
        return {"c1_p50_us": load.p50_us, "c1_p99_us": load.p99_us}

    def peer(self, started: Started) -> Figures:
        with started() as (tree, url):
            return self._measure(tree, url)

    def gateway(self) -> Figures:
        with gateway(
            self._folder, {"score": experiment("http", {"url": self._up.a}, {"url": self._up.b})}, PATH, BODY
        ) as own:
            return self._measure(own.tree, own.url, own)

    def _measure(self, tree: Tree, url: str, own: Gateway | None = None) -> Figures:
        _expect_split(url)
        traffic = self._traffic(url)
        sent = wrk(traffic, 32, 1).requests  # warm: connections open
        while own and sent < USERS:  # and every user known: a first vote costs more, which `bench_flat` tells
            sent += wrk(traffic, 32, 1).requests
        figures: Figures = {}
        for name, connections in (("c32", 32), ("c1", 1)):
            send = partial(wrk, traffic, connections, self._seconds)
            case = settled(own, send) if own else loaded(tree, send)
            figures |= {f"{name}_{figure}": value for figure, value in case.items()}
        return figures

    def _traffic(self, url: str) -> Traffic:
        return Traffic.write(self._folder, url, BODY, [PATH], {"x-origin": ORIGINS})


def goals(rounds: Rounds) -> Iterator[Measured]:
    """The budget of the request path, against Envoy in the same rounds."""
    count = len(rounds.of("gateway"))
    workers = rounds.ratio("gateway", "c32_cpu_us_workers", "envoy", "c32_cpu_us")
    yield Measured(NAME, "workers' CPU per request over Envoy's, c=32", workers, 1.0, count)
    control = rounds.median("gateway", "c32_cpu_us_control")
    yield Measured(NAME, "control process, CPU µs per request, c=32", control, CONTROL_LIMIT_US, count)
    for figure in ("c1_p50_us", "c1_p99_us"):
        direct = rounds.median("direct", figure)
        added, limit = (rounds.median(name, figure) - direct for name in ("gateway", "envoy"))
        yield Measured(NAME, f"added latency {figure[3:6]} in µs, at most Envoy's, c=1", added, limit, count)


def _expect_split(url: str) -> None:
    """Both variants answer, `b` about a fifth: raises BenchmarkError if the server splits otherwise."""
    with httpx.Client(base_url=url, timeout=10.0) as client:
        answers = [
            client.post(PATH, content=BODY, headers={"x-user-id": f"probe-{user}"}).json()["model"]
            for user in range(PROBES)
        ]
    share = answers.count("b-1") / PROBES
    if not 0.12 < share < 0.28 or answers.count("a-1") + answers.count("b-1") != PROBES:
        raise BenchmarkError(f"{url} gives {share:.0%} of the users b, expected 20%")


@contextmanager
def subjects(folder: Path, seconds: int) -> Iterator[Subjects]:
    with servers.upstreams(folder, ANSWER % "a", ANSWER % "b") as up:
        yield Bench(folder, up, seconds).subjects()


main = command(NAME, subjects, goals, proxy_table, compared=("gateway", "envoy", "direct"))

if __name__ == "__main__":
    main()
