"""Real gateways that are killed, paused, stopped and started again: what "nothing is lost" is proved on.

A node keeps its data directory and its ports over all its lives. Whatever it ever started is known by id and time of
birth, so that at the end each of them can be waited for, or killed, and nobody else.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec

from benchmarks.node_config import ENDPOINT
from benchmarks.processes import BenchmarkError, Tree, begun, wait_until
from benchmarks.results_file import ROOT
from gateway.release.keys import Keys

START = 60.0  # seconds until a node must be ready, whatever was killed before
LEAVE = 45.0  # seconds until a node that was told to stop must have left
WORKER, CONTROL = "gateway.worker", "gateway.control"
SIGNING, PEPPER = "GATEWAY_BENCH_SIGNING", "GATEWAY_BENCH_PEPPER"  # in the environment of nodes that share a store


@dataclass(slots=True)
class Node:
    """One `gateway serve`, over all its lives."""

    home: Path
    document: dict[str, Any]
    module: str = "gateway.cli"
    environment: Mapping[str, str] = field(default_factory=dict)
    lives: int = 0
    _tree: Tree | None = None
    _family: dict[int, str] = field(default_factory=dict)  # ids with their times of birth

    @property
    def config(self) -> Path:
        return self.home / "gateway.yaml"

    @property
    def data_dir(self) -> Path:
        return self.home / str(self.document["data_dir"])

    @property
    def database(self) -> Path:
        """The file of the store."""
        named = str(self.document.get("store", "")).removeprefix("sqlite:///")
        return self.home / named if named else self.data_dir / "gateway.db"

    @property
    def store_url(self) -> str:
        named = str(self.document.get("store", ""))
        return named if named.startswith("postgresql:") else f"sqlite:///{self.database}"

    @property
    def pepper(self) -> bytes:
        """Under which it remembers units."""
        if PEPPER in self.environment:
            return bytes.fromhex(self.environment[PEPPER])
        keys = msgspec.json.decode((self.data_dir / "keys.json").read_bytes(), type=Keys)
        return bytes.fromhex(keys.pepper)

    @property
    def port(self) -> int:
        return int(self.document["data"]["listen"].rpartition(":")[2])

    @property
    def log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self.home.glob("life-*.log")))

    @property
    def lives_now(self) -> bool:
        return self._tree is not None and self._tree.root.poll() is None

    def start(self) -> None:
        """Begin a life; returns when its supervisor has the data directory, which the last one's may still hold."""
        self.lives += 1
        deadline = time.monotonic() + START
        while not self._begins():
            if time.monotonic() > deadline or "still draining" not in self.log.splitlines()[-1]:
                raise BenchmarkError(f"{self.home.name} could not begin:\n{self.log[-2000:]}")
            time.sleep(0.05)

    def prepare(self) -> list[str]:
        """Write the config; returns the command that serves from it."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.config.write_text(json.dumps(self.document, indent=1))
        return [sys.executable, "-m", self.module, "serve", "--config", str(self.config), "--shutdown-delay", "0.2"]

    def _begins(self) -> bool:
        """Spawn it; False if it ends before it has announced itself."""
        announced = self.data_dir / "node.json"
        announced.unlink(missing_ok=True)
        tree = self._tree = self._spawned()
        told = f"{self.home.name} did not start"
        wait_until(lambda: announced.exists() or tree.root.poll() is not None, START, told, 0.02)
        return tree.root.poll() is None

    def await_ready(self) -> None:
        wait_until(self.is_ready, START, f"{self.home.name} was not ready\n{self.log[-3000:]}", 0.05)

    def is_ready(self) -> bool:
        """Every worker is there and serves the newest plan, in which the challenger has its share."""
        try:
            status = self.status()
        except httpx.HTTPError:
            return False
        workers = status["workers"]
        served = {worker["plan_revision"] for worker in workers}
        split = status["endpoints"].get(ENDPOINT, {}).get("split", {})
        all_there = len(workers) == self.document["data"]["workers"] and served == {status.get("plan_revision")}
        return all_there and len(split) > 1

    def status(self) -> dict[str, Any]:
        """As the admin port tells; raises httpx.HTTPError."""
        url = f"http://{self.document['admin']['listen']}/api/status"
        found: dict[str, Any] = httpx.get(url, timeout=5.0, trust_env=False).raise_for_status().json()
        return found

    def metrics(self) -> dict[str, float]:
        """Samples by their line without the value; raises httpx.HTTPError."""
        url = f"http://{self.document['metrics']['listen']}/metrics"
        text = httpx.get(url, timeout=5.0, trust_env=False).raise_for_status().text
        samples = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    def processes(self, module: str = "") -> list[int]:
        """Living processes of the present life that run a module, by default all; the supervisor first."""
        found = self._tree.pids() if self.lives_now and self._tree else []
        self._remember(found)
        return [pid for pid in found if begun(pid) is not None and (not module or _runs(pid, module))]

    def signal(self, pid: int, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    def kill_supervisor(self) -> None:
        """Its children notice, leave in an orderly way, and hold the data directory until then."""
        self.processes()
        assert self._tree is not None
        self._tree.root.kill()
        self._tree.root.wait()

    def kill_all(self) -> None:
        """Everything at once, as when a machine's memory is gone."""
        everybody = self.processes()
        for pid in everybody:
            self.signal(pid, signal.SIGKILL)
        assert self._tree is not None
        self._tree.root.wait()

    def stop(self) -> int:
        """Told to leave, with everything shipped; returns the exit code."""
        self.processes()
        assert self._tree is not None
        if self._tree.root.poll() is None:
            self._tree.root.terminate()
        return self._tree.root.wait(LEAVE)

    def close(self) -> None:
        """Whatever of it is still there is killed, each by its id."""
        if self._tree is None:
            return
        try:
            if self._tree.root.poll() is None:
                self.stop()
        except subprocess.TimeoutExpired:
            self._tree.root.kill()
            self._tree.root.wait()
        for pid, birth in self._family.items():
            if begun(pid) == birth:
                self.signal(pid, signal.SIGKILL)
        left = self._family.items()
        wait_until(lambda: all(begun(pid) != birth for pid, birth in left), LEAVE, f"{self.home.name} did not end")

    def _spawned(self) -> Tree:
        command = self.prepare()
        log = self.home / f"life-{self.lives:04d}.log"
        with log.open("ab") as output:
            root = subprocess.Popen(
                command,
                cwd=self.home,
                env={**os.environ, "PYTHONPATH": str(ROOT), "GATEWAY_LOG_FORMAT": "json", **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self._remember([root.pid])
        return Tree(self.home.name, root, log)

    def _remember(self, pids: Sequence[int]) -> None:
        for pid in pids:
            if (birth := begun(pid)) is not None:
                self._family[pid] = birth


@contextmanager
def running(*nodes: Node) -> Iterator[None]:
    """All nodes, ready; at the end nothing of them is left, whatever happened."""
    with ExitStack() as stack:
        for node in nodes:
            stack.callback(node.close)
        for node in nodes:
            node.start()
        for node in nodes:
            node.await_ready()
        yield


def settled(question: Callable[[], bool], what: str, seconds: float = 60.0) -> float:
    """Wait until it is true; returns the seconds that took."""
    began = time.monotonic()
    wait_until(question, seconds, what, 0.05)
    return time.monotonic() - began


def waited(question: Callable[[], bool], seconds: float) -> float:
    """Wait until it is true, or no longer than that; returns the seconds that took."""
    began = time.monotonic()
    with suppress(BenchmarkError):
        wait_until(question, seconds, "", 0.05)
    return time.monotonic() - began


def _runs(pid: int, module: str) -> bool:
    try:
        return module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
