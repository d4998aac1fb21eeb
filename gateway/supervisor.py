"""The supervisor: binds the ports once, starts every process with the inherited sockets, restarts each alone.

It is thin on purpose: it answers no request, opens no database, and its death is noticed by its children at the end
of a pipe. Order of shutdown: workers first (not ready, drain), then the control process (ship the rest).
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec

from gateway.errors import GatewayError
from gateway.node import ControlSettings, WorkerSettings

log = logging.getLogger(__name__)

CHECK = 0.05  # seconds between two looks at the children
FIRST_BACKOFF, LONGEST_BACKOFF = 0.1, 5.0  # seconds before a process that keeps dying is started again
STEADY = 10.0  # seconds after which a process counts as having started well
BACKLOG = 2048


class SupervisorError(GatewayError):
    """The node cannot start; the message says what is in the way."""

    reason = "supervisor"


class Address(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """Everything that the supervisor needs of the config."""

    config: Path
    data_dir: Path
    data: Address
    admin: Address
    metrics: Address
    workers: int
    shutdown_delay: float = 5.0
    drain: float = 2.0
    grace: float = 25.0


@dataclass(slots=True)
class _Child:
    """A process to keep alive."""

    name: str
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    backoff: float = FIRST_BACKOFF
    not_before: float = 0.0
    starts: int = 0


@dataclass(slots=True)
class Supervisor:
    """Keeps one node running until `stop` is called or a signal comes."""

    settings: NodeSettings
    _sockets: dict[str, socket.socket] = field(default_factory=dict)
    _lock: int = -1
    _lifeline: tuple[int, int] = (-1, -1)
    _stopping: bool = False
    _children: list[_Child] = field(default_factory=list)

    def start(self) -> None:
        """Take the data directory and the ports; raises SupervisorError if either is taken."""
        try:
            for folder in ("spool", "status"):
                (self.settings.data_dir / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SupervisorError(f"{self.settings.data_dir}: cannot be made: {error.strerror}") from error
        self._lock = _lock(self.settings.data_dir)
        for name in ("data", "admin", "metrics"):
            self._sockets[name] = _bind(getattr(self.settings, name))
        self._lifeline = os.pipe()
        addresses = {name: "{}:{}".format(*sock.getsockname()[:2]) for name, sock in self._sockets.items()}
        node = self.settings.data_dir / "node.json"
        node.write_bytes(msgspec.json.encode({"pid": os.getpid(), **addresses}))
        self._children = [_Child("control")] + [_Child(f"worker-{index}") for index in range(self.settings.workers)]
        log.info("listening on %(data)s, admin %(admin)s, metrics %(metrics)s", addresses)

    def run(self) -> int:
        """Keep the children alive until told to stop; returns the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        refused = False
        while not self._stopping:
            refused = not self._tend()
            if refused:
                break
            time.sleep(CHECK)
        self.shutdown()
        return 78 if refused else 0

    def shutdown(self) -> None:
        """Workers first, so that the control process can ship what they leave."""
        control, *workers = self._children
        # The workers hold the port until they stop accepting; a copy kept here would let the kernel take
        # connections that nobody answers.
        self._sockets.pop("data").close()
        bound = self.settings.shutdown_delay + self.settings.drain + self.settings.grace + 2.0
        _terminate(workers, bound)
        _terminate([control], 10.0)
        for sock in self._sockets.values():
            sock.close()
        os.close(self._lifeline[1])
        os.close(self._lifeline[0])
        os.close(self._lock)

    def _on_signal(self, number: int, _: object) -> None:
        log.info("%s: shutting down", signal.Signals(number).name)
        self._stopping = True

    def _tend(self) -> bool:
        """Start what does not run. False if the control process refuses the config at its first start."""
        now = time.monotonic()
        for child in self._children:
            if child.process is not None:
                code = child.process.poll()
                if code is None:
                    continue
                if child.name == "control" and code == 78 and child.starts == 1:
                    return False
                self._note_death(child, code, now)
            if now >= child.not_before:
                self._spawn(child, now)
        return True

    def _note_death(self, child: _Child, code: int, now: float) -> None:
        child.process = None
        steady = now - child.started >= STEADY
        child.backoff = FIRST_BACKOFF if steady else min(LONGEST_BACKOFF, child.backoff * 2)
        child.not_before = now + (0.0 if steady else child.backoff)
        log.error("%s ended with %d, starting it again", child.name, code)

    def _spawn(self, child: _Child, now: float) -> None:
        if child.name == "control":
            module, arguments, descriptors = self._control_command()
        else:
            module, arguments, descriptors = self._worker_command()
        child.process = subprocess.Popen(
            [sys.executable, "-m", module, arguments],
            # With the lock's descriptor the data directory stays taken until the last child has left.
            pass_fds=(*descriptors, self._lock),
            stdin=subprocess.DEVNULL,
        )
        child.started = now
        child.starts += 1

    def _control_command(self) -> tuple[str, str, tuple[int, ...]]:
        admin, metrics = self._sockets["admin"].fileno(), self._sockets["metrics"].fileno()
        settings = ControlSettings(
            config=str(self.settings.config),
            data_dir=str(self.settings.data_dir),
            lifeline=self._lifeline[0],
            admin_socket=admin,
            metrics_socket=metrics,
        )
        return "gateway.control", msgspec.json.encode(settings).decode(), (self._lifeline[0], admin, metrics)

    def _worker_command(self) -> tuple[str, str, tuple[int, ...]]:
        data = self._sockets["data"].fileno()
        settings = WorkerSettings(
            data_dir=str(self.settings.data_dir),
            spool=_next_spool(self.settings.data_dir),
            socket=data,
            lifeline=self._lifeline[0],
            shutdown_delay=self.settings.shutdown_delay,
            drain=self.settings.drain,
            grace=self.settings.grace,
        )
        return "gateway.worker", msgspec.json.encode(settings).decode(), (self._lifeline[0], data)


def _terminate(children: list[_Child], bound: float) -> None:
    running = [child.process for child in children if child.process is not None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + bound
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning("process %d did not stop within %.0f s and is killed", process.pid, bound)
            process.kill()
            process.wait()


def _next_spool(data_dir: Path) -> int:
    """A spool number that was never used in this data directory; only the lock's holder asks."""
    counter = data_dir / "spool.next"
    number = int(counter.read_text()) if counter.exists() else 1
    temporary = counter.with_suffix(".new")
    temporary.write_text(str(number + 1))
    temporary.replace(counter)
    return number


def _lock(data_dir: Path) -> int:
    path = data_dir / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SupervisorError(f"{data_dir}: another gateway uses this data directory, or is still draining") from None
    except OSError as error:
        raise SupervisorError(f"{path}: {error.strerror}") from error
    return descriptor


def _bind(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((address.host, address.port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise SupervisorError(f"cannot listen on {address}: {error.strerror}") from error
    sock.setblocking(False)
    return sock
