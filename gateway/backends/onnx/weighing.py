"""What a model weighs: on disk, and in the memory of every process that loads it.

It is loaded in a process of its own, as a worker would load it: one that brings its process down is found before it
does that to a worker, and every measurement begins with a clean memory.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from gateway.backends.onnx.artifacts import digest
from gateway.backends.onnx.loading import load
from gateway.backends.onnx.signature import ModelError, Signature

LOADING = 120.0  # seconds that a file may take


class Weighed(NamedTuple):
    """A model file that was loaded once.

    `resident` is the anonymous memory that this took, in bytes: what is mapped from a file is shared by all workers.
    """

    digest: str
    signature: Signature
    size: int
    resident: int


def weigh(path: Path) -> Weighed:
    """Raises ModelError or OSError if the file cannot be served; blocks."""
    found, size = digest(path), path.stat().st_size
    signature, resident = _apart(path)
    return Weighed(found, signature, size, resident)


def _apart(path: Path) -> tuple[Signature, int]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_load, args=(path, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(LOADING):
            raise ModelError(f"{path}: was not loaded within {LOADING:.0f} s")
        answer = ours.recv()
    except EOFError:
        process.join()
        raise ModelError(f"{path}: brings down the process that loads it (exit code {process.exitcode})") from None
    finally:
        process.kill()
        process.join()
        ours.close()
    if isinstance(answer, ModelError):
        raise answer
    signature, resident = answer
    return signature, resident


def _load(path: Path, answer: Connection) -> None:
    before = _anonymous()
    try:
        model = load(path, "")
    except ModelError as error:
        answer.send(error)
        return
    answer.send((model.signature, max(0, _anonymous() - before)))


def _anonymous() -> int:
    """Bytes in memory that no file stands behind; proc(5)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["RssAnon"].removesuffix("kB")) << 10
