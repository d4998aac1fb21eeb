"""Model files that bring down the process that reads them are not read for ever.

The control process reads every file before workers hear of it, in native code. A note lies on disk while it does; who
finds one at the next start, and hears that the last process died in native code, knows what of. Twice is enough.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from gateway.backends.onnx import ModelError

ENOUGH = 2
_OPEN = "open"


class _Note(NamedTuple):
    """Of a model, by its digest."""

    deaths: int = 0
    open: bool = False  # it is being read, or was when the process ended

    def write(self, path: Path) -> None:
        with suppress(OSError):  # a full disk is no reason not to read
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.write_text(f"{self.deaths} {_OPEN}" if self.open else str(self.deaths))


@contextmanager
def attempt(folder: Path, digest: str) -> Iterator[None]:
    """Around the reading of a model; raises ModelError if it has brought down its reader before."""
    path = folder / f".{digest}.reading"
    before = _note(path)
    if before.deaths >= ENOUGH:
        raise ModelError(f"brought down the control process {before.deaths} times; to try it again, delete {path}")
    before._replace(open=True).write(path)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def settle(folder: Path, crashed: bool) -> None:
    """For a process that starts: what the last one was reading when it ended; whether that was a crash in native code.

    Whoever was told to leave, or was killed, says nothing about the file that it happened to read.
    """
    for path in folder.glob(".*.reading"):
        note = _note(path)
        after = _Note(note.deaths + (note.open and crashed))
        if after.deaths:
            after.write(path)
        else:
            path.unlink(missing_ok=True)


def forget(folder: Path, needed: Collection[str]) -> None:
    """Delete notes on digests that nobody needs, but for files that are not read any more: these may come back."""
    for path in folder.glob(".*.reading"):
        digest = path.name.removeprefix(".").removesuffix(".reading")
        if digest not in needed and _note(path).deaths < ENOUGH:
            path.unlink(missing_ok=True)


def _note(path: Path) -> _Note:
    try:
        deaths, _, state = path.read_text().partition(" ")
        return _Note(int(deaths), state == _OPEN)
    except (OSError, ValueError):
        return _Note()
