"""What happens to the store, or to the disk, while a node is under load; and what has become of every fact afterwards.

locked       another process holds the write lock of the SQLite file
pinned       a reader holds an old snapshot, so that the write-ahead log can only grow
full         the disk of spools and store is full (needs root, for a small tmpfs)
store-full   only the store's disk is
faulty       one in twenty writes and syncs of the workers fails, or is cut short

Requests are answered through all of it. What was acknowledged is in the store once it is back; what a full disk did not
take was never acknowledged, and is counted. `python -m benchmarks.prove --only outage` keeps the results.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click

from benchmarks.accounts import Allowed, Known, audit, shipped
from benchmarks.calling import Calling, calling
from benchmarks.node_config import document
from benchmarks.nodes import Node, running, settled
from benchmarks.processes import BenchmarkError, prepare
from benchmarks.results_file import Case

CODE = ("gateway/**/*.py", "gateway/**/*.sql", *(f"benchmarks/{name}.py" for name in ("outage", "accounts", "callers")))
BEFORE, AFTER = 300, 300  # requests answered before and after an outage, at least
CATCH_UP = 120.0  # seconds within which everything must be in the store once it is back
FAULTY = "benchmarks.faulty_node"
SHARE = "GATEWAY_BENCH_FAULTS"  # in the environment of a faulty node: the share of its writes that fail
_DROPPED = 'gateway_spool_failures_total{stream="requests"}'

Outage = Callable[[Node], AbstractContextManager[None]]


class NotHere(BenchmarkError):
    """This machine does not allow it; the message says why."""


def endure(node: Node, outage: Outage, seconds: float, seed: int) -> Case:
    """A node under load, through an outage of so many seconds."""
    with running(node):
        with calling([node.port], seed) as callers:
            callers.more(BEFORE)
            with outage(node):
                during = _during(node, callers, seconds)
            known = Known.of(callers.log)
            catch_up = settled(lambda: _caught_up(node, known), "the store did not catch up", CATCH_UP)
            callers.more(AFTER)
            log = callers.stop()
        settled(lambda: _caught_up(node, Known.of(log)), "not everything was shipped", CATCH_UP)
        dropped = _dropped(node)
        code = node.stop()
    result = audit(log, node, Allowed(dropped=dropped))
    problems = result["problems"]
    if code:
        problems["the node ended with"] = [code]
    if unanswered := {what: number for what, number in log.failed.items() if what.startswith("ask: ")}:
        problems["requests that were not answered"] = [unanswered]
    times = {"outage_s": round(seconds, 1), "catch_up_s": round(catch_up, 2)}
    return {"seed": seed, **times, "dropped": dropped, **during, **result, "pass": not problems}


def _caught_up(node: Node, known: Known) -> bool:
    """Whether the store has what is known, but for what no spool took."""
    return shipped(known._replace(requests=known.requests - _dropped(node)), node)


def _dropped(node: Node) -> int:
    """Facts of requests that no spool took, as the node tells Prometheus."""
    return round(node.metrics().get(_DROPPED, 0.0))


def _during(node: Node, callers: Calling, seconds: float) -> Case:
    """Let the outage last, and see how the node tells of it."""
    begun, answered = time.monotonic(), len(callers.log.answered)
    store_down, lag = False, 0.0
    while time.monotonic() < begun + seconds:
        callers.more(20)
        status = node.status()
        store_down |= not status["store"]["ok"]
        lag = max(lag, status["lag_seconds"])
    return {
        "answered_during": len(callers.log.answered) - answered,
        "store_told_down": store_down,
        "longest_lag_s": round(lag, 2),
    }


@contextmanager
def locked(node: Node) -> Iterator[None]:
    """Another process writes, or hangs in the midst of that."""
    with closing(sqlite3.connect(node.database, isolation_level=None, timeout=10.0)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("ROLLBACK")


@contextmanager
def pinned(node: Node) -> Iterator[None]:
    """A notebook that somebody has left open in the midst of a query."""
    with closing(sqlite3.connect(f"file:{node.database}?mode=ro", uri=True, isolation_level=None)) as db:
        db.execute("BEGIN")
        db.execute("SELECT count(*) FROM assignment").fetchone()
        yield
        db.execute("ROLLBACK")


def full(folder: Path) -> Outage:
    """The disk that holds the folder has no byte left."""

    @contextmanager
    def outage(_: Node) -> Iterator[None]:
        ballast = folder / "ballast"
        try:
            _fill(ballast)
            yield
        finally:
            ballast.unlink(missing_ok=True)

    return outage


def none(_: Node) -> AbstractContextManager[None]:
    return nullcontext()


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    """A file system of its own; raises NotHere where that is not allowed."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=700", "proof", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotHere(f"a small tmpfs cannot be mounted: {getattr(error, 'stderr', '') or error}") from error
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True, capture_output=True)


def measure(kind: str, folder: Path, seconds: float, seed: int = 1) -> Case:
    """One outage by its name in the head of this module; raises NotHere."""
    return _KINDS[kind](folder, seconds, seed)


def _locked(folder: Path, seconds: float, seed: int) -> Case:
    return endure(Node(folder / "node", document()), locked, seconds, seed)


def _pinned(folder: Path, seconds: float, seed: int) -> Case:
    """Beside the rest: the database file stands still while it is pinned, and grows again afterwards."""
    node = Node(folder / "node", document())
    sizes: dict[str, int] = {}

    @contextmanager
    def watched(node: Node) -> Iterator[None]:
        with pinned(node):
            yield
            sizes["log_bytes_pinned"] = _size(Path(f"{node.database}-wal"))
            sizes["database_bytes_pinned"] = _size(node.database)

    result = endure(node, watched, seconds, seed)
    sizes["database_bytes_after"] = _size(node.database)
    return {**result, **sizes}


def _full(folder: Path, seconds: float, seed: int) -> Case:
    with small_disk(folder / "disk", 48) as disk:
        node = Node(folder / "node", document(data_dir=str(disk / "data")))
        return endure(node, full(disk), seconds, seed)


def _store_full(folder: Path, seconds: float, seed: int) -> Case:
    with small_disk(folder / "disk", 48) as disk:
        node = Node(folder / "node", document(store=f"sqlite:///{disk}/gateway.db"))
        return endure(node, full(disk), seconds, seed)


def _faulty(folder: Path, seconds: float, seed: int, durability: str = "disk") -> Case:
    made = document(outcomes={"durability": durability})
    node = Node(folder / "node", made, module=FAULTY, environment={SHARE: f"0.05 {seed}"})
    return endure(node, none, seconds, seed)


_KINDS: dict[str, Callable[[Path, float, int], Case]] = {
    "locked": _locked,
    "pinned": _pinned,
    "full": _full,
    "store-full": _store_full,
    "faulty": _faulty,
}
KINDS = tuple(_KINDS)


def _fill(path: Path) -> None:
    """Up to the last byte that a file can take."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            block = bytes(size)
            try:
                while file.write(block) == size:
                    pass
            except OSError:
                continue
        os.fsync(file.fileno())


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@click.command()
@click.option("--kind", type=click.Choice(KINDS), default="locked", show_default=True)
@click.option("--seconds", default=5.0, show_default=True)
@click.option("--seed", default=1, show_default=True)
def main(kind: str, seconds: float, seed: int) -> None:
    """One outage, and what has become of every fact."""
    prepare()
    with tempfile.TemporaryDirectory(prefix="outage-") as folder:
        case: dict[str, Any] = measure(kind, Path(folder), seconds, seed)
    click.echo(json.dumps(case, indent=1))
    raise SystemExit(not case["pass"])


if __name__ == "__main__":
    main()
