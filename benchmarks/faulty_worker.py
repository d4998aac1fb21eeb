"""A worker whose disk fails now and then: what `os` says to the spools is sometimes an error, or less than was asked.

Started in the place of `gateway.worker` by `faulty_node`. The environment says how often, and with which seed.
"""

from __future__ import annotations

import errno
import os
import random
import sys
from typing import Any

import msgspec

from gateway import worker
from gateway.node import WorkerSettings
from gateway.spool import unsynced, writer

SHARE = "GATEWAY_BENCH_FAULTS"


class FaultyDisk:
    """The module `os`, but for writes and syncs of which a share fails: no room, an I/O error, a part of the bytes."""

    def __init__(self, share: float, seed: int) -> None:
        self._share = share
        self._random = random.Random(seed)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, descriptor: int, data: bytes) -> int:
        if self._random.random() >= self._share:
            return os.write(descriptor, data)
        if self._random.random() < 0.5:
            return os.write(descriptor, data[: self._random.randrange(len(data))])
        raise self._error()

    def fsync(self, descriptor: int) -> None:
        self._sync(os.fsync, descriptor)

    def fdatasync(self, descriptor: int) -> None:
        self._sync(os.fdatasync, descriptor)

    def _sync(self, sync: Any, descriptor: int) -> None:
        sync(descriptor)
        if self._random.random() < self._share:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def _error(self) -> OSError:
        number = self._random.choice([errno.ENOSPC, errno.EIO])
        return OSError(number, os.strerror(number))


def main() -> None:
    share, seed = os.environ[SHARE].split()
    spool = msgspec.json.decode(sys.argv[1], type=WorkerSettings).spool
    disk = FaultyDisk(float(share), int(seed) * 1_000_003 + spool)
    for module in (writer, unsynced):
        setattr(module, "os", disk)  # noqa: B010 - as far as mypy sees
    worker.main()


if __name__ == "__main__":
    main()
