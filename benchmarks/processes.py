"""Servers under test as processes: started on one core, measured as a tree, stopped whatever happens."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import httpx

from gateway.memory import resident

SERVER_CORE, LOAD_CORE = 0, 1  # what is measured never shares a core with what measures
START = 120.0  # seconds until a server must answer; LiteLLM needs half a minute
STOP = 20.0  # seconds to leave after SIGTERM
_TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")
_PARTS = {"gateway.worker": "workers", "gateway.control": "control", "gateway.cli": "supervisor"}


class BenchmarkError(click.ClickException):
    """The measurement would be worth nothing; the message says why."""


def prepare() -> None:
    """Raises BenchmarkError without two cores. From now on SIGTERM unwinds, so that no server is left behind."""
    if not {SERVER_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        raise BenchmarkError(f"cores {SERVER_CORE} and {LOAD_CORE} are needed: one for servers, one for the load")
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


@dataclass(frozen=True, slots=True)
class Tree:
    """A running server: the process that was started and all its descendants."""

    name: str
    root: subprocess.Popen[bytes]
    log: Path

    def pids(self) -> list[int]:
        """Living processes, the root first."""
        children: dict[int, list[int]] = defaultdict(list)
        for pid, parent in _parents():
            children[parent].append(pid)
        found = [self.root.pid]
        for pid in found:
            found += children[pid]
        return found

    def cpu_us(self) -> dict[str, float]:
        """User and system time by part, in microseconds, to a clock tick (10 ms)."""
        return self._by_part(lambda pid: sum(map(int, _stat(pid)[11:13])) * _TICK_US)

    def rss_mb(self) -> dict[str, float]:
        """Resident memory by part, in MB."""
        return self._by_part(lambda pid: resident(pid) / 1e6)

    def _by_part(self, read: Callable[[int], float]) -> dict[str, float]:
        parts: dict[str, float] = defaultdict(float)
        for pid in self.pids():
            try:
                command = Path(f"/proc/{pid}/cmdline").read_text()
                parts[_part(command)] += read(pid)
            except (FileNotFoundError, ProcessLookupError):
                continue  # a helper that ended between two looks; what it used is lost to both
        return dict(parts)


@contextmanager
def running(
    name: str,
    command: Sequence[str],
    folder: Path,
    ready: Callable[[], bool],
    *,
    cores: str = str(SERVER_CORE),
    environment: Mapping[str, str] | None = None,
) -> Iterator[Tree]:
    """The server in its folder, from its first good answer on; raises BenchmarkError if none comes."""
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        root = subprocess.Popen(
            ["taskset", "-c", cores, *command],
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    tree = Tree(name, root, log)
    try:
        _await(tree, ready)
        yield tree
    finally:
        _stop(tree)


def answers(url: str, body: bytes | None = None) -> Callable[[], bool]:
    """Whether the server answers 200: to a POST of the body, or to a GET."""

    def ask() -> bool:
        try:
            method = "GET" if body is None else "POST"
            headers = {"content-type": "application/json"}
            return httpx.request(method, url, content=body, headers=headers, timeout=10.0).status_code == 200
        except httpx.TransportError:
            return False

    return ask


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(true: Callable[[], bool], seconds: float, what: str, pause: float = 0.1) -> None:
    """Raises BenchmarkError if it does not become true in time."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise BenchmarkError(f"{what} within {seconds:.0f} s")
        time.sleep(pause)


def _await(tree: Tree, ready: Callable[[], bool]) -> None:
    def up() -> bool:
        if tree.root.poll() is not None:
            raise BenchmarkError(f"{tree.name} ended with {tree.root.returncode}:\n{_tail(tree.log)}")
        return ready()

    try:
        wait_until(up, START, f"{tree.name} did not answer")
    except BenchmarkError as error:
        raise BenchmarkError(f"{error}\n{_tail(tree.log)}") from None


def _stop(tree: Tree) -> None:
    """The root is asked; whoever of its family is left after that is killed, each by its id."""
    family = {pid: begun(pid) for pid in tree.pids()}
    tree.root.send_signal(signal.SIGTERM)
    try:
        tree.root.wait(STOP)
    except subprocess.TimeoutExpired:
        family |= {pid: begun(pid) for pid in tree.pids()}
        tree.root.kill()
        tree.root.wait()
    left = {pid: birth for pid, birth in family.items() if birth is not None and pid != tree.root.pid}
    for pid, birth in left.items():
        if begun(pid) == birth:  # and not a stranger that got its number
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: all(begun(pid) != birth for pid, birth in left.items()), STOP, f"{tree.name} did not end")


def begun(pid: int) -> str | None:
    """When a process began, in clock ticks; None if it has ended, waited for or not."""
    try:
        fields = _stat(pid)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]


def _parents() -> Iterator[tuple[int, int]]:
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                yield int(entry), int(_stat(int(entry))[1])
            except (FileNotFoundError, ProcessLookupError):
                continue


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat behind the name, which may hold spaces: state, parent, ... (proc(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _part(command: str) -> str:
    return next((part for module, part in _PARTS.items() if module in command), "server")


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])
