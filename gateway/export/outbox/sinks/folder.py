"""Events as files of JSON lines: one grows under a hidden name, and gets its name when it is whole."""

from __future__ import annotations

import os
from pathlib import Path

from gateway.clock import Clock
from gateway.export.outbox.events import Event
from gateway.export.outbox.sinks import SinkError

_BYTES = 64 << 20
_AGE = 300.0  # seconds after which a file is whole however small it is


class Folder:
    """NAME-<when it was begun, in microseconds>.ndjson: the order of the names is that of the events."""

    def __init__(self, folder: Path, name: str, clock: Clock, most: int = _BYTES, age: float = _AGE) -> None:
        """Raises SinkError. What a killed process left is whole as far as it goes: only its last line may be torn."""
        self._folder, self._name, self._clock = folder, name, clock
        self._most, self._age = most, age
        self._file: int | None = None
        self._size = 0
        self._begun = 0.0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for left in sorted(folder.glob(f".{name}-*.ndjson.part")):
                _mend(left)
                self._finish(left)
        except OSError as error:
            raise self._failed(error) from error

    def send(self, events: tuple[Event, ...]) -> None:
        text = b"".join(event.text + b"\n" for event in events)
        try:
            if self._file is None:
                self._open()
            assert self._file is not None
            _write(self._file, text)
            os.fsync(self._file)
            self._size += len(text)
            if self._size >= self._most:
                self._close()
        except OSError as error:
            raise self._failed(error) from error

    def idle(self) -> None:
        """Nothing came for a while: what has waited long enough gets its name."""
        if self._file is not None and self._clock.monotonic() - self._begun >= self._age:
            self.close()

    def close(self) -> None:
        try:
            self._close()
        except OSError as error:
            raise self._failed(error) from error

    def _open(self) -> None:
        named = (int(path.stem.rpartition("-")[2]) for path in self._folder.glob(f"{self._name}-*.ndjson"))
        number = max([self._clock.wall_us(), *(before + 1 for before in named)])
        self._path = self._folder / f".{self._name}-{number:016d}.ndjson.part"
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._size, self._begun = 0, self._clock.monotonic()

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
            self._finish(self._path)

    def _finish(self, path: Path) -> None:
        if path.stat().st_size == 0:
            path.unlink()
            return
        path.rename(path.with_name(path.name.removeprefix(".").removesuffix(".part")))
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _failed(self, error: OSError) -> SinkError:
        return SinkError(f"{self._folder}: {error.strerror}")


def _write(file: int, data: bytes) -> None:
    """All of it: a short write is followed by the error that caused it."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def _mend(path: Path) -> None:
    """Cut off a line that was not written to its end; its batch was not acknowledged."""
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            begin = max(0, end - 65_536)
            file.seek(begin)
            found = file.read(end - begin).rfind(b"\n")
            if found >= 0:
                file.truncate(begin + found + 1)
                break
            end = begin
        else:
            file.truncate(0)
        os.fsync(file.fileno())
