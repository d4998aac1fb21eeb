"""Outcomes through a real worker: posted by wrk over kept connections, acknowledged, shipped, joined.

Worker and control process share one core, the client has the other. Every outcome names a real decision and has an id
of its own; a load counts once all of it is in the store.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx

from benchmarks.callers import FLIGHT
from benchmarks.load import Load, loaded
from benchmarks.node_config import ENDPOINT, document
from benchmarks.nodes import Node
from benchmarks.processes import LOAD_CORE, SERVER_CORE, BenchmarkError, Tree, answers, running, wait_until
from benchmarks.rounds import Figures

SCRIPT = Path(__file__).with_name("outcomes.lua")
TOKENS = 2000
BATCH, BATCH_CONNECTIONS, CONNECTIONS = 1000, 4, 32
SHIPPED = 120.0  # seconds within which what was acknowledged must be in the store


class Bench:
    """One gateway of one worker, at one level of durability, and tokens of requests that it has answered."""

    def __init__(self, tree: Tree, url: str, node: Node, tokens: Path, seconds: int) -> None:
        self._tree = tree
        self._url = url
        self._node = node
        self._tokens = tokens
        self._seconds = seconds
        self._loads = 0

    def measure(self, batch: int) -> Figures:
        """Figures of one outcome: those of `benchmarks.load.loaded`."""
        connections = BATCH_CONNECTIONS if batch > 1 else CONNECTIONS
        self._send(batch, connections, 1)  # warm
        before = self._stored()

        def settle(sent: int) -> None:
            wait_until(lambda: self._stored() >= before + sent, SHIPPED, f"the store did not hold {sent} outcomes")

        return loaded(self._tree, lambda: self._send(batch, connections, self._seconds), settle)

    def _send(self, batch: int, connections: int, seconds: int) -> Load:
        self._loads += 1
        command = [
            "taskset",
            "-c",
            str(LOAD_CORE),
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds}",
            "--timeout",
            "30s",
        ]
        command += ["-s", str(SCRIPT), self._url, "--", str(self._tokens), str(batch), f"{self._loads}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60.0, check=False)
        if done.returncode != 0 or not done.stdout:
            raise BenchmarkError(f"wrk failed: {done.stderr or done.stdout}")
        said = json.loads(done.stdout.splitlines()[-1])
        if said["refused"] or said["broken"] or not said["requests"]:
            raise BenchmarkError(f"not every outcome was acknowledged: {said}")
        sent = said["requests"] * batch
        return Load(sent, said["seconds"], said["p50_us"], said["p99_us"], connections * batch)

    def _stored(self) -> int:
        with closing(sqlite3.connect(f"file:{self._node.database}?mode=ro", uri=True, timeout=5.0)) as db:
            (number,) = db.execute("SELECT count(*) FROM outcome").fetchone()
        return int(number)


@contextmanager
def bench(folder: Path, durability: str, seconds: int) -> Iterator[Bench]:
    """A fresh gateway whose outcomes have the usual window of an hour."""
    made = document(outcomes={"durability": durability})
    made["data"]["workers"] = 1
    made["endpoints"][ENDPOINT]["metrics"]["brier"]["window"] = "1h"
    node = Node(folder / durability, made)
    command = node.prepare()
    url = f"http://127.0.0.1:{node.port}"
    path = f"/v2/models/{ENDPOINT}/infer"
    with running("gateway", command, node.home, answers(url + path, FLIGHT), cores=str(SERVER_CORE)) as tree:
        tokens = folder / f"{durability}.tokens"
        with httpx.Client(base_url=url, timeout=10.0, trust_env=False) as client:
            asked = (client.post(path, content=FLIGHT, headers={"x-user-id": f"user-{n}"}) for n in range(TOKENS))
            tokens.write_text("".join(f"{one.raise_for_status().headers['x-gateway-decision']}\n" for one in asked))
        yield Bench(tree, url, node, tokens, seconds)
