"""The supervisor: binds the ports once, starts every process with the inherited sockets, restarts each alone.

It is thin on purpose: it answers no request, opens no database, and its death is noticed by its children at the end
of a pipe. Order of shutdown: workers first (not ready, drain), then the control process (ship the rest). A second
signal makes it short: workers are killed, what they have written is shipped all the same.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from gateway import ends
from gateway.errors import GatewayError
from gateway.node import ControlSettings, WorkerSettings
from gateway.numbers import NoNumber, SpoolNumbers
from gateway.supervision.children import CHECK, Child, Spawn, terminate
from gateway.supervision.closed_door import turn_away
from gateway.supervision.listeners import Address, Listener, ListenError, listen
from gateway.supervision.recycling import Recycling
from gateway.telemetry.seldom import Seldom
from gateway.telemetry.status_page import Word, read_page

log = logging.getLogger(__name__)

REFUSED = 78  # sysexits.h: something is wrong with the configuration
SHIPPING = 10.0  # seconds for the control process to leave
REMINDED = 30.0  # seconds between two words about what only somebody else can end
WAITING = 0.2  # seconds between two looks for a number of a spool
LEAVING = 10.0  # seconds beyond its own bounds for a worker that was told to leave, before it is killed


class SupervisorError(GatewayError):
    """The node cannot start; the message says what is in the way."""

    reason = "supervisor"


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """Everything that the supervisor needs of the config."""

    config: Path
    data_dir: Path
    data: Address
    admin: Address
    metrics: Address
    workers: int
    max_memory: int | None = None  # bytes that a worker may hold
    granted_numbers: bool = False  # whether the store gives out the numbers of spools
    shutdown_delay: float = 5.0
    drain: float = 2.0
    grace: float = 25.0

    @property
    def status(self) -> Path:
        return self.data_dir / "status"


@dataclass(slots=True)
class Supervisor:
    """Keeps one node running until `stop` is called or a signal comes."""

    settings: NodeSettings
    _listeners: dict[str, Listener] = field(default_factory=dict)
    _lock: int = -1
    _lifeline: tuple[int, int] = (-1, -1)
    _signals: list[int] = field(default_factory=list)
    _children: list[Child] = field(default_factory=list)
    _untold: dict[int, str] = field(default_factory=dict)  # how workers ended, by spool: not on disk yet
    _control_end: str = ""
    _recycling: Recycling = field(default_factory=Recycling)
    _seldom: Seldom = field(default_factory=Seldom)
    _patient: Seldom = field(default_factory=lambda: Seldom(REMINDED))

    def start(self) -> None:
        """Take the data directory and the ports; raises SupervisorError or ListenError if either is taken."""
        try:
            for folder in ("spool", "status"):
                (self.settings.data_dir / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SupervisorError(f"{self.settings.data_dir}: cannot be made: {error.strerror}") from error
        self._lock = _lock(self.settings.data_dir)
        self._untold = dict.fromkeys(_left_behind(self.settings.status), ends.UNKNOWN)
        self._listen()
        addresses = {name: str(one.address) for name, one in self._listeners.items()}
        self._announce({"pid": os.getpid(), **addresses})
        self._lifeline = os.pipe()
        self._children = [Child("control")] + [Child(f"worker-{index}") for index in range(self.settings.workers)]
        log.info("listening on %(data)s, admin %(admin)s, metrics %(metrics)s", addresses)

    def _listen(self) -> None:
        try:
            for name in ("data", "admin", "metrics"):
                self._listeners[name] = listen(getattr(self.settings, name))
        except ListenError:
            self._stop_listening()
            raise

    def _stop_listening(self) -> None:
        for listener in self._listeners.values():
            listener.close()

    def _announce(self, node: dict[str, int | str]) -> None:
        """Where it listens, for whoever looks; visible whole."""
        path = self.settings.data_dir / "node.json"
        temporary = path.with_suffix(".new")
        try:
            temporary.write_bytes(msgspec.json.encode(node))
            temporary.replace(path)
        except OSError as error:
            self._stop_listening()
            raise SupervisorError(f"{path}: cannot be written: {error.strerror}") from error

    def run(self) -> int:
        """Keep the children alive until told to stop; returns the exit code: 0, 78 if the control process refuses the
        config, or 128 and the signal's number if a second one cut the shutdown short.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        refused = False
        while not self._signals:
            refused = not self._tend()
            if refused:
                break
            time.sleep(CHECK)
        self.shutdown()
        if refused:
            return REFUSED
        return 128 + self._signals[1] if self._hurried() else 0

    def shutdown(self) -> None:
        """Workers first, so that the control process can ship what they leave."""
        control, *workers = self._children
        # The workers hold the port until they stop accepting; a copy kept here would let the kernel take
        # connections that nobody answers.
        self._listeners["data"].sock.close()
        bound = self.settings.shutdown_delay + self.settings.drain + self.settings.grace + 2.0
        terminate(
            [*(child.process for child in workers), *(one.process for one in self._recycling.leaving)],
            bound,
            self._hurried,
        )
        terminate([control.process], SHIPPING, lambda: False)
        self._stop_listening()
        for descriptor in (self._lifeline[1], self._lifeline[0], self._lock):
            os.close(descriptor)

    def _hurried(self) -> bool:
        return len(self._signals) > 1

    def _on_signal(self, number: int, _: object) -> None:
        self._signals.append(number)
        what = "killing the workers" if self._hurried() else "shutting down"
        log.info("%s: %s", signal.Signals(number).name, what)

    def _tend(self) -> bool:
        """Start what does not run. False if the control process refuses the config, and nothing was ever served."""
        now = time.monotonic()
        for child in self._children:
            code = child.ended()
            if code is not None:
                if child.name == "control" and code == REFUSED and (child.starts == 1 or not self._has_served):
                    return False
                self._note_end(child, code, now)
            if child.process is None and now >= child.not_before:
                self._spawn(child, now)
        if not self._has_served:
            turn_away(self._listeners["data"].sock)
        if self.settings.max_memory is not None:
            self._recycle(self._children[1:], self.settings.max_memory, now)
        self._tell(now)
        return True

    @property
    def _has_served(self) -> bool:
        """Whether there is a plan, of this life or one before; without one no worker can answer."""
        return (self.settings.data_dir / "plan.json").exists()

    def _note_end(self, child: Child, code: int, now: float) -> None:
        child.rest(now)
        if child.name == "control":
            self._control_end = ends.word(code)
        if code == 0:  # somebody has told it to leave, and it did
            log.warning("%s has left, starting another", child.name)
            return
        how = ends.word(code)
        log.error("%s ended with %d (%s), starting it again", child.name, code, how)
        if child.spool:
            self._untold[child.spool] = how

    def _recycle(self, workers: list[Child], limit: int, now: float) -> None:
        self._untold |= self._recycling.ended()
        grown = self._recycling.due(workers, limit, now)
        if grown is not None:
            log.warning("%s holds more than %d bytes: another takes its place", grown.name, limit)
            self._recycling.replace(grown, now)
            self._spawn(grown, now)
        self._recycling.dismiss(self._serves, self.settings.drain + self.settings.grace + LEAVING, now)

    def _serves(self, worker: Child) -> bool:
        """Whether it runs and has taken a plan, with all its models."""
        if worker.ended() is not None or worker.process is None:
            return False
        try:
            pages = [read_page(path) for path in self.settings.status.glob(f"{worker.spool:08d}-*.page")]
        except OSError:
            return False
        return any(page is not None and page.word(Word.PLAN_REVISION) for page in pages)

    def _tell(self, now: float) -> None:
        """What the disk does not take now is told later."""
        for spool, how in list(self._untold.items()):
            try:
                ends.tell(self.settings.status, spool, how)
            except OSError as error:
                if self._seldom.due("end", now) is not None:
                    log.warning("%s: how worker %d ended is not written: %s", self.settings.status, spool, error)
                return
            del self._untold[spool]

    def _spawn(self, child: Child, now: float) -> None:
        make = self._control if child.name == "control" else self._worker
        # With the lock's descriptor the data directory stays taken until the last child has left.
        try:
            child.start(make, (self._lifeline[0], self._lock), now)
        except NoNumber as error:
            if self._patient.due("number", now) is not None:
                log.warning("%s waits: %s", child.name, error)
            child.not_before = now + WAITING
        except (OSError, ValueError) as error:  # a full disk, no memory, no process number left: that may pass
            log.error("%s cannot be started: %s", child.name, error)  # noqa: TRY400 - the line says it all
            child.rest(now)

    def _control(self) -> Spawn:
        admin, metrics = self._listeners["admin"].sock.fileno(), self._listeners["metrics"].sock.fileno()
        settings = ControlSettings(
            config=str(self.settings.config),
            data_dir=str(self.settings.data_dir),
            lifeline=self._lifeline[0],
            admin_socket=admin,
            metrics_socket=metrics,
            name=f"{os.uname().nodename} {self._listeners['admin'].address}",
            last_end=self._control_end,
        )
        return Spawn("gateway.control", settings, (admin, metrics))

    def _worker(self) -> Spawn:
        data = self._listeners["data"].sock.fileno()
        settings = WorkerSettings(
            data_dir=str(self.settings.data_dir),
            spool=SpoolNumbers(self.settings.data_dir).take(granted=self.settings.granted_numbers),
            socket=data,
            lifeline=self._lifeline[0],
            shutdown_delay=self.settings.shutdown_delay,
            drain=self.settings.drain,
            grace=self.settings.grace,
        )
        return Spawn("gateway.worker", settings, (data,), settings.spool)


def _left_behind(status: Path) -> set[int]:
    """Spools of workers that nobody saw end: they died with the last supervisor, or after it."""
    pages = {path.stem.partition("-")[0] for path in status.glob("*.page")}
    return {int(spool) for spool in pages if spool.isdigit()} - ends.told(status).keys()


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
