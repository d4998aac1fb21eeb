"""A real gateway as a child process, and a client that keeps it busy: what the process tests are made of."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

MODELS = Path(__file__).parents[3] / "models" / "flight_delay"
FLIGHT = [8, 30, 2, 9, 1400, 0, 0, 70, 55, 60, 180, 8, 0, 0, 1016, 10]


def infer_body(row: Sequence[float] = FLIGHT) -> dict[str, Any]:
    return {"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, len(row)], "data": row}]}


def wait_for(condition: Callable[[], Any], what: str, within: float = 15.0) -> Any:
    """Poll until the condition is truthy; fail with its name otherwise."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        result = condition()
        if result:
            return result
        time.sleep(0.02)
    raise AssertionError(f"not within {within} s: {what}")


@dataclass
class Node:
    """One running `gateway serve`."""

    config: Path
    process: subprocess.Popen[bytes]
    client: httpx.Client
    addresses: dict[str, Any] = field(default_factory=dict)

    @property
    def log(self) -> str:
        return self.config.with_name("gateway.log").read_text()

    def url(self, port: str, path: str) -> str:
        return f"http://{self.addresses[port]}{path}"

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = self.client.get(self.url("admin", "/api/status")).raise_for_status().json()
        return document

    def metrics(self) -> dict[str, float]:
        """Samples by their line without the value."""
        text = self.client.get(self.url("metrics", "/metrics")).raise_for_status().text
        samples = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    def total(self, prefix: str) -> float:
        return sum(value for name, value in self.metrics().items() if name.startswith(prefix))

    def infer(self, **headers: str) -> httpx.Response:
        url = self.url("data", "/v2/models/flight-delay/infer")
        return self.client.post(url, json=infer_body(), headers=headers)

    def converged(self) -> bool:
        status = self.status()
        workers = status["workers"]
        return bool(workers) and all(w["plan_revision"] == status["plan_revision"] for w in workers)

    def edit(self, old: str, new: str) -> None:
        """Edit the config in place, as a person would."""
        text = self.config.read_text()
        assert old in text, old
        self.config.write_text(text.replace(old, new))

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def child(self, module: str) -> list[int]:
        return children(self.process.pid, module)


def children(supervisor: int, module: str) -> list[int]:
    """Process ids of a supervisor's children that run a module."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (path / "cmdline").read_bytes().split(b"\0")
            parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError, ValueError):
            continue
        if parent == supervisor and module.encode() in arguments:
            found.append(int(path.name))
    return sorted(found)


@contextmanager
def running(
    config: Path,
    *,
    workers: int,
    module: str = "gateway.cli",
    prefix: Sequence[str] = (),
    environment: Mapping[str, str] = {},
) -> Iterator[Node]:
    """Start a node on a config whose ports are 0; stop it by its id at the end. `prefix` is what execs it."""
    with config.with_name("gateway.log").open("wb") as log:
        process = subprocess.Popen(
            [*prefix, sys.executable, "-m", module, "serve", "--config", str(config), "--shutdown-delay", "0.2"],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "GATEWAY_LOG_FORMAT": "json", **environment},
        )
    with httpx.Client(trust_env=False, timeout=10.0) as client:
        node = Node(config, process, client)
        try:
            _await_ready(node, workers)
            yield node
        finally:
            node.stop()


def _await_ready(node: Node, workers: int) -> None:
    path = node.config.parent / "data" / "node.json"

    def ready() -> bool:
        assert node.process.poll() is None, node.log
        if not path.exists():
            return False
        node.addresses = json.loads(path.read_bytes())
        try:
            return len(node.status()["workers"]) == workers and (not workers or node.converged())
        except httpx.HTTPError:
            return False

    wait_for(ready, "the node is ready", 30.0)


class Load:
    """Requests on kept-alive connections from several threads, each with its own unit, until told to stop."""

    def __init__(self, node: Node, threads: int = 4, send: Callable[[httpx.Client, str], httpx.Response] | None = None):
        self.answers: Counter[int | str] = Counter()
        self.ids: list[str] = []
        self._node = node
        self._send = send or self._infer
        self._stop = threading.Event()
        self._numbers = itertools.count()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def done(self) -> int:
        return sum(self.answers.values())

    def more(self, n: int) -> None:
        """Wait until `n` more requests were answered."""
        target = self.done + n
        wait_for(lambda: self.done >= target, f"{n} more answers", 30.0)

    def failures(self) -> dict[int | str, int]:
        return {key: count for key, count in self.answers.items() if key != 200}

    def _run(self) -> None:
        with httpx.Client(trust_env=False, timeout=10.0) as client:
            while not self._stop.is_set():
                identifier = f"load-{next(self._numbers)}"
                try:
                    answer = self._send(client, identifier)
                except httpx.HTTPError as error:
                    self.answers[type(error).__name__] += 1
                    continue
                self.answers[answer.status_code] += 1
                if answer.status_code == 200:
                    self.ids.append(identifier)

    def _infer(self, client: httpx.Client, identifier: str) -> httpx.Response:
        url = self._node.url("data", "/v2/models/flight-delay/infer")
        return client.post(url, json=infer_body(), headers={"x-request-id": identifier})
