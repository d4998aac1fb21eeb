"""Processes that the supervisor keeps alive: start, end, rest before the next start, and the common end."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

log = logging.getLogger(__name__)

CHECK = 0.05  # seconds between two looks at the children
FIRST_BACKOFF, LONGEST_BACKOFF = 0.1, 5.0  # seconds before a process that keeps ending is started again
STEADY = 10.0  # seconds after which a process counts as having started well

Process = subprocess.Popen[bytes]


class Spawn(NamedTuple):
    """What to start."""

    module: str
    settings: msgspec.Struct
    descriptors: tuple[int, ...]
    spool: int = 0  # of a worker


@dataclass(slots=True)
class Child:
    """A process to keep alive."""

    name: str
    process: Process | None = None
    spool: int = 0
    started: float = 0.0
    backoff: float = FIRST_BACKOFF
    not_before: float = 0.0
    starts: int = 0

    def start(self, make: Callable[[], Spawn], common: tuple[int, ...], now: float) -> None:
        """What is made is started; the descriptors are inherited, those in `common` too. Raises what `make` does, and
        OSError.
        """
        self.started = now  # also where it fails, so that it rests
        spawn = make()
        self.process = subprocess.Popen(
            [sys.executable, "-m", spawn.module, msgspec.json.encode(spawn.settings).decode()],
            pass_fds=(*spawn.descriptors, *common),
            stdin=subprocess.DEVNULL,
        )
        self.spool = spawn.spool
        self.starts += 1

    def ended(self) -> int | None:
        """What `Popen` tells of its end, None while it runs or there is none."""
        return None if self.process is None else self.process.poll()

    def rest(self, now: float) -> None:
        """It has ended; one that did so soon after its start waits, longer each time."""
        self.process = None
        steady = now - self.started >= STEADY
        self.backoff = FIRST_BACKOFF if steady else min(LONGEST_BACKOFF, self.backoff * 2)
        self.not_before = now + (0.0 if steady else self.backoff)


def terminate(processes: Iterable[Process | None], bound: float, hurried: Callable[[], bool]) -> None:
    """Ask them to leave and wait for that; kill who is still there after `bound` seconds, or once `hurried`."""
    running = [process for process in processes if process is not None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + bound
    while any(process.poll() is None for process in running) and time.monotonic() < deadline and not hurried():
        time.sleep(CHECK)
    for process in running:
        if process.poll() is None:
            log.warning("process %d has not left and is killed", process.pid)
            process.kill()
        process.wait()
