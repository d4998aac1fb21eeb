"""A worker as a process of its own, started as the supervisor does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from gateway.node import WorkerSettings

PROMPT = 10.0  # seconds in which a process that does not hang has long done what it should


class Started(NamedTuple):
    popen: subprocess.Popen[bytes]
    port: int
    lifeline: int  # the end that a supervisor holds


@contextmanager
def started(
    data_dir: Path, *, shutdown_delay: float = 0.0, drain: float = 0.0, backlog: int = 128, **how: Any
) -> Iterator[Started]:
    """It serves once there is a plan in `data_dir`; killed at the end. `how` is for Popen."""
    for folder in ("spool", "status"):
        (data_dir / folder).mkdir()
    listener = socket.create_server(("127.0.0.1", 0), backlog=backlog)
    reading, lifeline = os.pipe()
    settings = WorkerSettings(
        data_dir=str(data_dir),
        spool=1,
        socket=listener.fileno(),
        lifeline=reading,
        shutdown_delay=shutdown_delay,
        drain=drain,
        grace=1.0,
    )
    arguments = [sys.executable, "-m", "gateway.worker", msgspec.json.encode(settings).decode()]
    popen = subprocess.Popen(arguments, pass_fds=(listener.fileno(), reading), **how)
    running = Started(popen, listener.getsockname()[1], lifeline)
    listener.close()
    os.close(reading)
    try:
        yield running
    finally:
        popen.kill()
        popen.communicate()
        with suppress(OSError):
            os.close(lifeline)
