"""What a running node holds, looked at from outside: memory and descriptors of each process, requests, files."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypedDict

from benchmarks.processes import Tree
from gateway.memory import resident
from gateway.telemetry.status_page import Word, read_page

_ANONYMOUS = re.compile(r"^RssAnon:\s+(\d+) kB$", re.MULTILINE)
_PARTS = {"gateway.worker": "worker", "gateway.control": "control", "gateway.cli": "supervisor"}


class Process(NamedTuple):
    """One process, named for what it does: `worker 1`, `control 1`."""

    name: str
    pid: int


class Held(TypedDict):
    rss_mib: float
    anonymous_mib: float  # without what is mapped from files and shared
    descriptors: int
    sockets: int


class Sample(TypedDict):
    """Everything at one moment, so many seconds from the start."""

    at: float
    processes: dict[str, Held]
    in_flight: int
    spool_mib: float
    store_mib: float


def processes(tree: Tree) -> list[Process]:
    """Those of a node, numbered in the order of their ids."""
    counted: Counter[str] = Counter()
    found = []
    for pid in sorted(tree.pids()):
        command = Path(f"/proc/{pid}/cmdline").read_text()
        part = next((name for module, name in _PARTS.items() if module in command), "other")
        counted[part] += 1
        found.append(Process(f"{part} {counted[part]}", pid))
    return found


def worker_of(tree: Tree) -> int:
    """The process id of the only worker, or the first."""
    return next(one.pid for one in processes(tree) if one.name == "worker 1")


def sample(at: float, known: list[Process], data_dir: Path) -> Sample:
    """Raises FileNotFoundError if one of the processes has ended."""
    return {
        "at": round(at, 1),
        "processes": {one.name: held(one.pid) for one in known},
        "in_flight": in_flight(data_dir),
        "spool_mib": _mib(size for size in _sizes(data_dir / "spool")),
        "store_mib": _mib(path.stat().st_size for path in data_dir.glob("gateway.db*")),
    }


def held(pid: int) -> Held:
    opened = list(_targets(pid))
    return {
        "rss_mib": round(resident(pid) / 2**20, 2),
        "anonymous_mib": round(_anonymous_kib(pid) / 2**10, 2),
        "descriptors": len(opened),
        "sockets": sum(target.startswith("socket:") for target in opened),
    }


def in_flight(data_dir: Path) -> int:
    """Requests being answered, by the status pages of all workers."""
    pages = (read_page(path) for path in (data_dir / "status").glob("*.page"))
    return sum(page.word(Word.IN_FLIGHT) for page in pages if page is not None)


def _anonymous_kib(pid: int) -> int:
    found = _ANONYMOUS.search(Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) if found else 0  # of a process that has ended, which nobody has waited for


def _targets(pid: int) -> Iterator[str]:
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        try:
            yield os.readlink(f"{folder}/{name}")
        except FileNotFoundError:
            continue  # closed between two looks


def _sizes(folder: Path) -> Iterator[int]:
    for path in folder.iterdir():
        try:
            yield path.stat().st_size
        except FileNotFoundError:
            continue  # shipped and removed between two looks


def _mib(sizes: Iterator[int]) -> float:
    return round(sum(sizes) / 2**20, 2)
