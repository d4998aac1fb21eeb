"""What an OpenAI-compatible request costs behind this gateway and behind LiteLLM's proxy, plain and streamed.

Both split one model name 80/20 over two deployments. Plain answers come from nginx, streams from `provider`: chunks at
a fixed gap, the first at once. The gateway runs an experiment beside it, as in `bench_proxy`.

`make peers` first, then `python -m benchmarks.bench_openai --json`: about ten minutes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import servers
from benchmarks.bench_tables import openai_table
from benchmarks.gateway_server import ORIGINS, experiment, gateway, settled
from benchmarks.load import Load, Traffic, loaded, wrk
from benchmarks.processes import LOAD_CORE, BenchmarkError, answers, free_port, running
from benchmarks.results_file import ROOT
from benchmarks.rounds import Figures, Rounds, Subjects, command
from benchmarks.servers import Upstreams
from benchmarks.stats_common import Measured

NAME = "openai"
PATH = "/v1/chat/completions"
CHUNKS, GAP = 100, 0.005  # of a stream, seconds between
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-%s",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello!"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
    }
)
Measuring = Callable[[Callable[[], Load]], Figures]
CHEAPER, FIRST_LIMIT_US = 100.0, 1000.0


def body(model: str, *, stream: bool = False) -> bytes:
    """A small chat request."""
    messages = [{"role": "user", "content": "Say hello."}]
    return json.dumps({"model": model, "messages": messages, **({"stream": True} if stream else {})}).encode()


@contextmanager
def provider(folder: Path) -> Iterator[Upstreams]:
    """Streams on the load's core, two ports."""
    ports = [free_port(), free_port()]
    command = [sys.executable, "-m", "benchmarks.provider", "--chunks", str(CHUNKS), "--gap", str(GAP)]
    command += [f"--port={port}" for port in ports]
    up = Upstreams(*[f"http://127.0.0.1:{port}" for port in ports])
    environment = {"PYTHONPATH": str(ROOT)}
    with running(
        "provider", command, folder, answers(up.b + PATH, b"{}"), cores=str(LOAD_CORE), environment=environment
    ):
        yield up


@dataclass(frozen=True, slots=True)
class Bench:
    """Both kinds of upstream, and every server in front of them in turn."""

    folder: Path
    plain: Upstreams
    streamed: Upstreams
    seconds: int

    def subjects(self) -> Subjects:
        return {"direct": self.direct, "gateway": self.gateway, "litellm": self.litellm}

    def direct(self) -> Figures:
        """The upstreams without anything before them: what a latency is added to."""
        load = wrk(self._traffic(self.plain.a), 1, self.seconds)
        _, streams = self._streams(self.streamed.a, 1)
        return {"c1_p50_us": load.p50_us, "c1_p99_us": load.p99_us, **_first(streams)}

    def gateway(self) -> Figures:
        endpoints = {
            name: experiment(
                "openai", {"url": up.a, "model": "gpt-a"}, {"url": up.b, "model": "gpt-b"}, id=f"{name}-b-vs-a"
            )
            for name, up in (("chat", self.plain), ("stream", self.streamed))
        }
        with gateway(self.folder, endpoints, PATH, body("chat")) as own:
            return self._measure(own.url, partial(settled, own))

    def litellm(self) -> Figures:
        with servers.litellm(self.folder, self.plain, self.streamed, PATH, body("chat")) as (tree, url):
            return self._measure(url, partial(loaded, tree))

    def _measure(self, url: str, measured: Measuring) -> Figures:
        traffic = self._traffic(url)
        wrk(traffic, 32, 2)  # warm
        figures: Figures = {}
        for name, connections in (("c32", 32), ("c1", 1)):
            case = measured(partial(wrk, traffic, connections, self.seconds))
            figures |= {f"{name}_{figure}": value for figure, value in case.items()}
        _, streams = self._streams(url, 1)
        return figures | _first(streams) | self._cost_of_chunks(url, measured)

    def _cost_of_chunks(self, url: str, measured: Measuring) -> Figures:
        told: dict[str, float] = {}

        def read() -> Load:
            load, seen = self._streams(url, 32)
            told.update(seen)
            return load

        case = measured(read)
        each = {part: us * told["streams"] / told["chunks"] for part, us in case.items() if part.startswith("cpu_us")}
        return {"chunks_per_second": told["chunks"] / told["seconds"], **{f"chunk_{n}": us for n, us in each.items()}}

    def _streams(self, url: str, connections: int) -> tuple[Load, dict[str, float]]:
        """Streams to their end; raises BenchmarkError if one was not whole."""
        command = ["taskset", "-c", str(LOAD_CORE), sys.executable, "-m", "benchmarks.streams", url + PATH]
        command += ["--body", body("stream", stream=True).decode(), "--chunks", str(CHUNKS)]
        command += [f"--connections={connections}", f"--seconds={self.seconds}"]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=self.seconds + 60.0, check=True
        )
        seen: dict[str, float] = json.loads(done.stdout)
        if seen["broken"] or not seen["streams"]:
            raise BenchmarkError(f"{url}: not every stream was whole: {seen}")
        return Load(int(seen["streams"]), seen["seconds"], seen["first_p50_us"], seen["first_p99_us"]), seen

    def _traffic(self, url: str) -> Traffic:
        return Traffic.write(self.folder, url, body("chat"), [PATH], {"x-origin": ORIGINS})


def _first(seen: dict[str, Any]) -> Figures:
    return {name: seen[name] for name in ("first_p50_us", "first_p99_us")}


def goals(rounds: Rounds) -> Iterator[Measured]:
    """Against LiteLLM and against the upstream itself, in the same rounds."""
    count = len(rounds.of("gateway"))
    cheaper = rounds.ratio("litellm", "c32_cpu_us", "gateway")
    yield Measured(NAME, "LiteLLM's CPU per plain request over the gateway's, c=32", cheaper, CHEAPER, count, True)
    delay = rounds.median("gateway", "first_p50_us") - rounds.median("direct", "first_p50_us")
    yield Measured(NAME, "delay of a stream's first chunk at the median, in µs", delay, FIRST_LIMIT_US, count)


@contextmanager
def subjects(folder: Path, seconds: int) -> Iterator[Subjects]:
    plain = servers.upstreams(folder, ANSWER % "a", ANSWER % "b")
    with plain as up, provider(folder) as streamed:
        yield Bench(folder, up, streamed, seconds).subjects()


main = command(NAME, subjects, goals, openai_table, compared=("direct", "gateway", "litellm"), seconds=8)

if __name__ == "__main__":
    main()
