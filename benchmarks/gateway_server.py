"""This gateway under test: started from a config, measured with its debts, the facts it leaves counted."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.load import Load, loaded
from benchmarks.processes import SERVER_CORE, Tree, answers, free_port, running, wait_until
from benchmarks.rounds import Figures
from benchmarks.servers import address

ORIGINS = ["EWR", "JFK", "LGA"]  # values of the segment
SETTLE = 60.0  # seconds within which the control process must have shipped what a run left


@dataclass(frozen=True, slots=True)
class Gateway:
    """This gateway, running: its processes, where it answers, and the store that it leaves."""

    tree: Tree
    url: str
    store: Path

    def facts(self) -> tuple[int, int]:
        """(assignments, completions) in the store so far."""
        with closing(sqlite3.connect(f"file:{self.store}?mode=ro", uri=True, timeout=5.0)) as db:
            assignments, completions = (
                db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("request", "completion")
            )
        return assignments, completions

    def settle(self, known: int, sent: int) -> None:
        """Wait until all of `sent` requests, beyond those `known`, have both facts in the store.

        Raises BenchmarkError if they do not come: then what was measured was not durable.
        """

        def shipped() -> bool:
            assignments, completions = self.facts()
            return assignments == completions and completions >= known + sent

        wait_until(shipped, SETTLE, f"the store did not hold both facts of {sent} requests", pause=0.2)


def experiment(
    protocol: str, a: Mapping[str, Any], b: Mapping[str, Any], id: str = "b-vs-a", **more: Any
) -> dict[str, Any]:
    """An endpoint of a config: `a` and `b` at 80/20 in an experiment that counts everything and moves nothing."""
    return {
        "protocol": protocol,
        "unit": {"from": "header:x-user-id", "otherwise": "request"},
        "segments": {"origin": {"from": "header:x-origin", "values": ORIGINS}},
        "variants": {"a": {"role": "champion", **a}, "b": {"role": "challenger", **b}},
        "metrics": {
            "latency": {"type": "latency", "limit": "250ms", "direction": "decrease", "source": "gateway"},
            "errors": {"type": "binary", "direction": "decrease", "source": "gateway"},
        },
        "experiment": {
            "id": id,
            "objective": {"metric": "latency", "min_effect": 0.01},
            "guardrails": [{"metric": "errors", "margin": 0.005}],
            "stages": [{"traffic": "20%"}],
            "automation": "off",
            **more,
        },
    }


@contextmanager
def gateway(
    folder: Path, endpoints: Mapping[str, Any], path: str, body: bytes, *, cores: str = str(SERVER_CORE), **more: Any
) -> Iterator[Gateway]:
    """One worker and the control process; `more` keys go into the config beside the endpoints."""
    home = folder / "gateway"
    home.mkdir(parents=True, exist_ok=True)
    url, port = address()
    document = {
        "version": 1,
        "data": {"listen": f"127.0.0.1:{port}", "workers": 1},
        "admin": {"listen": f"127.0.0.1:{free_port()}"},
        "metrics": {"listen": f"127.0.0.1:{free_port()}"},
        "data_dir": "data",
        "endpoints": endpoints,
        **more,
    }
    config = home / "gateway.yaml"
    shutil.rmtree(home / "data", ignore_errors=True)
    config.write_text(json.dumps(document, indent=1))
    command = [sys.executable, "-m", "gateway.cli", "serve", "--config", str(config), "--shutdown-delay", "0"]
    with running("gateway", command, home, answers(url + path, body), cores=cores) as tree:
        yield Gateway(tree, url, home / "data" / "gateway.db")


def settled(gateway: Gateway, send: Callable[[], Load]) -> Figures:
    """The gateway under load, its debts included: both facts of every request are in the store at the end."""
    gateway.settle(0, 1)
    known, _ = gateway.facts()
    figures = loaded(gateway.tree, send, partial(gateway.settle, known))
    facts, _ = gateway.facts()
    return {**figures, "facts": (facts - known) / figures["requests"]}
