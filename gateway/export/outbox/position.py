"""How far a consumer has come: a small file that belongs to it, replaced when the sink has acknowledged."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from gateway.errors import GatewayError


class PositionError(GatewayError):
    """The position cannot be kept, or is not of this store."""

    reason = "position"


class Arrival(msgspec.Struct, frozen=True, array_like=True):
    """The last outcome, in the order of arrivals."""

    at: int = 0
    decision: int = 0
    metric: str = ""
    id: str = ""


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """Everything up to here has been acknowledged."""

    version: int = 1
    store: str = ""  # by which the store is known again
    target: str = ""  # where the events went, without secrets; "" in files of before this was written down
    through: int = 0  # watermark up to which there was nothing left
    exposures: dict[int, int] = {}  # by spool, the last decision
    outcomes: Arrival = Arrival()
    decisions: int = 0  # the last row of the ledger


class Keeper:
    """The file of one consumer, held as long as it runs."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> Position | None:
        """None where nothing was ever acknowledged. Raises PositionError for a file that is none of ours."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Position)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise PositionError(f"{self._path}: {error.strerror}") from error
        except msgspec.DecodeError as error:
            raise PositionError(f"{self._path}: not the position of an outbox: {error}") from error

    def save(self, position: Position) -> None:
        """On the disk when this returns; a kill leaves the old position or the new one."""
        temporary = self._path.with_name(f".{self._path.name}.new")
        try:
            with temporary.open("wb") as file:
                file.write(msgspec.json.encode(position))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
            _sync(self._path.parent)
        except OSError as error:
            raise PositionError(f"{self._path}: {error.strerror}: the position could not be kept") from error


@contextmanager
def held(path: Path) -> Iterator[Keeper]:
    """Raises PositionError while another process has it: two would send everything twice."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise PositionError(f"{path}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise PositionError(f"{path}: another outbox of this name is running") from None
    try:
        yield Keeper(path)
    finally:
        os.close(lock)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
