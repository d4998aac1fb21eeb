"""A real node under mixed load for minutes: does it hold on to anything? A part of `prove`.

Two workers and the control process serve an experiment over two upstreams and an ONNX model, while clients upload,
stream and leave, upstreams fail, and the config is edited. Every process is looked at from outside every ten seconds,
and before and after the load, when it is idle.

`python -m benchmarks.soak --minutes 1` prints without keeping.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import httpx

from benchmarks.gateway_server import experiment
from benchmarks.processes import LOAD_CORE, BenchmarkError, Tree, answers, free_port, prepare, running, wait_until
from benchmarks.results_file import ROOT, Case
from benchmarks.sampling import Process, Sample, in_flight, processes, sample
from benchmarks.servers import address
from benchmarks.stats_common import Measured

NAME = "soak"
CODE = ("gateway/**/*.py", "benchmarks/soak*.py", "benchmarks/sampling.py")
MODELS = ROOT / "models" / "flight_delay"
EVERY = 10.0  # seconds between two samples
WARM_UP = 20.0  # seconds of load before the node is looked at for the first time
IDLE = 15.0  # seconds after a load: connections to upstreams are kept for four
QUIET = 30.0  # seconds that requests still in flight get to end
EDIT_EVERY = 2  # samples between two edits of the config
GROWTH, SLACK = 1.05, 4.0  # of resident memory from the second quarter to the last: a factor, and MiB
DESCRIPTORS = 5  # more at the end than at the start, at most


class Node:
    """The gateway, and the edits of its config."""

    def __init__(self, folder: Path, upstreams: list[str]) -> None:
        self.home = folder / "node"
        self.home.mkdir()
        self.url, self._port = address()
        self._admin = free_port()
        self._metrics = free_port()
        self._upstreams = upstreams
        self.edits = 0
        self.write()

    @property
    def data_dir(self) -> Path:
        return self.home / "data"

    @property
    def config(self) -> Path:
        return self.home / "gateway.yaml"

    def edit(self) -> None:
        """A header of the experiment's upstreams changes, which makes new backends of them, and the other model."""
        self.edits += 1
        self.write()

    def write(self) -> None:
        more = {"timeout": "2s", "idempotent": True, "headers": {"x-edit": str(self.edits)}}
        a, b = ({"url": url, **more} for url in self._upstreams)
        model = MODELS / ("twin.onnx" if self.edits % 2 else "logistic.onnx")
        document = {
            "version": 1,
            "data": {"listen": f"127.0.0.1:{self._port}", "workers": 2, "max_body": "16MiB"},
            "admin": {"listen": f"127.0.0.1:{self._admin}"},
            "metrics": {"listen": f"127.0.0.1:{self._metrics}"},
            "data_dir": "data",
            "model_roots": [str(MODELS)],
            "endpoints": {
                "score": experiment("http", a, b),
                "flight": {
                    "protocol": "oip",
                    "variants": {"only": {"role": "champion", "onnx": str(model)}},
                    "traffic": {"only": "100%"},
                },
            },
        }
        fresh = self.config.with_suffix(".new")
        fresh.write_text(json.dumps(document, indent=1))
        fresh.replace(self.config)

    def accepted(self) -> float:
        """When the control process last took a config, as it tells Prometheus."""
        said = httpx.get(f"http://127.0.0.1:{self._metrics}/metrics", timeout=10.0).text.splitlines()
        name = "gateway_config_last_reload_success_timestamp_seconds "
        return float(next(line for line in said if line.startswith(name)).split()[-1])


@contextmanager
def serving(folder: Path) -> Iterator[tuple[Node, Tree]]:
    """The node, with its upstreams on the core of the load."""
    ports = [free_port(), free_port()]
    node = Node(folder, [f"http://127.0.0.1:{port}" for port in ports])
    upstream = [sys.executable, "-m", "benchmarks.soak_upstream", *(f"--port={port}" for port in ports)]
    command = [sys.executable, "-m", "gateway.cli", "serve", "--config", str(node.config), "--shutdown-delay", "0"]
    os.environ["PYTHONPATH"] = str(ROOT)  # what is measured is this tree, wherever its environment lies
    up = answers(f"http://127.0.0.1:{ports[1]}/")
    with (
        running("upstream", upstream, folder, up, cores=str(LOAD_CORE)),
        running("gateway", command, node.home, answers(f"{node.url}/score/rank")) as tree,
    ):
        yield node, tree


@contextmanager
def loaded(folder: Path, url: str, seed: int) -> Iterator[dict[str, int]]:
    """Mixed clients; what became of their requests is there at the end."""
    ends: dict[str, int] = {}
    command = [sys.executable, "-m", "benchmarks.soak_clients", "--url", url, "--seed", str(seed)]
    with running("clients", command, folder, lambda: True, cores=str(LOAD_CORE)) as one:
        time.sleep(1.0)
        yield ends
        if one.root.poll() is not None:
            raise BenchmarkError(f"the clients have ended: {one.log.read_text()[-2000:]}")
    ends |= json.loads(one.log.read_text().splitlines()[-1])


def measure(minutes: float, say: Callable[[str], None]) -> Case:
    """The whole soak."""
    with tempfile.TemporaryDirectory(prefix="soak-") as name, serving(Path(name)) as (node, tree):
        folder = Path(name)
        with loaded(folder, node.url, seed=1_000):
            time.sleep(WARM_UP)
        known = processes(tree)
        before = _idle(node, known)
        say(_line("idle", before))
        with loaded(folder, node.url, seed=1) as ends:
            samples = list(_samples(node, known, minutes * 60, say))
        after = _idle(node, known)
        say(_line("idle", after))
    goals = [*_goals(before, samples, after), *_answered(ends)]
    records = [one.record() for one in goals]
    return {
        "minutes": minutes,
        "pass": all(one.passed for one in goals),
        "edits": node.edits,
        "goals": records,
        "ends": ends,
        "idle_before": before,
        "idle_after": after,
        "samples": samples,
    }


def _samples(node: Node, known: list[Process], seconds: float, say: Callable[[str], None]) -> Iterator[Sample]:
    began = time.monotonic()
    edited = 0.0
    for number in range(1, int(seconds / EVERY) + 1):
        time.sleep(max(0.0, began + number * EVERY - time.monotonic()))
        found = sample(time.monotonic() - began, known, node.data_dir)
        say(_line(f"{found['at']:.0f} of {seconds:.0f} s", found))
        yield found
        if number % EDIT_EVERY == 0:
            if edited and node.accepted() < edited:
                raise BenchmarkError(f"edit {node.edits} of the config was not taken within {EDIT_EVERY * EVERY:.0f} s")
            edited = time.time()
            node.edit()


def _idle(node: Node, known: list[Process]) -> Sample:
    time.sleep(IDLE)
    wait_until(lambda: in_flight(node.data_dir) == 0, QUIET, "requests were still in flight")
    return sample(0.0, known, node.data_dir)


def _goals(before: Sample, samples: list[Sample], after: Sample) -> Iterator[Measured]:
    quarter = len(samples) // 4
    second, last = samples[quarter : 2 * quarter], samples[-quarter:]
    for name in before["processes"]:
        if quarter:
            earlier, later = (
                statistics.median(one["processes"][name]["rss_mib"] for one in part) for part in (second, last)
            )
            what = f"RSS of {name} in MiB, last quarter (second: {earlier:.1f})"
            yield Measured(NAME, what, later, earlier * GROWTH + SLACK, quarter)
        start, end = (one["processes"][name]["descriptors"] for one in (before, after))
        yield Measured(
            NAME, f"descriptors of {name} when idle again (at the start {start})", end, start + DESCRIPTORS, 1
        )
    yield Measured(NAME, "requests in flight when idle again", after["in_flight"], 0, 1)


def _answered(ends: dict[str, int]) -> Iterator[Measured]:
    """What does not touch a faulty upstream is answered, whatever the others do and whatever is edited."""
    for kind in ("usual", "infer"):
        counts = {end: count for end, count in ends.items() if end.startswith(f"{kind}: ")}
        failed = sum(counts.values()) - counts.get(f"{kind}: 200", 0)
        yield Measured(NAME, f"requests of the kind {kind} that were not answered 200", failed, 0, sum(counts.values()))


def _line(when: str, one: Sample) -> str:
    parts = [f"{name} {held['rss_mib']:.1f} MiB {held['descriptors']} fds" for name, held in one["processes"].items()]
    told = f"{one['in_flight']} in flight, spool {one['spool_mib']:.1f} MiB, store {one['store_mib']:.1f} MiB"
    return f"soak: {when}: {', '.join(parts)}, {told}"


@click.command()
@click.option("--minutes", default=5.0, show_default=True)
def main(minutes: float) -> None:
    """Run once and print; `python -m benchmarks.prove --only soak` keeps the result."""
    prepare()
    case: dict[str, Any] = measure(minutes, lambda line: click.echo(line, err=True))
    click.echo(json.dumps({"ends": case["ends"], "goals": case["goals"]}, indent=1))
    raise SystemExit(not case["pass"])


if __name__ == "__main__":
    main()
