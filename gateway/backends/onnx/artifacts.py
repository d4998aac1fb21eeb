"""Model files on disk: which of them may be served, and copies that nobody replaces.

A variant's file belongs to whoever trains models: it may be overwritten while it is served. What is served is therefore
a copy named by its digest in the gateway's own directory. Every worker finds the same bytes there, after a restart too.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

from gateway.backends.onnx.external import external_data
from gateway.backends.onnx.signature import ModelError

_SUFFIX = ".onnx"
_UNFINISHED = ".new"


def digest(path: Path) -> str:
    """SHA-256 of an artifact, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verified(path: Path, expected: str) -> str:
    """The digest of the artifact ("" expects whichever lies there); raises ModelError naming both if it is another.

    What is measured under a digest must be what that digest names.
    """
    found = digest(path)
    if expected and found != expected:
        raise ModelError(f"{path}: has sha256 {found}, expected {expected}; it was replaced")
    return found


def confined(path: Path, roots: Sequence[Path]) -> Path:
    """The path with its links followed; raises ModelError if it leads out of all `roots`.

    Use the answer, not `path`: a link that is changed afterwards then leads nowhere else.
    """
    try:
        resolved = path.resolve()
        if any(resolved.is_relative_to(root.resolve()) for root in roots):
            return resolved
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise ModelError(f"{path}: cannot be followed: {error}") from error
    below = " or ".join(map(str, roots))
    leads = "" if resolved == path else f" leads to {resolved}, which"
    raise ModelError(f"{path}:{leads} is not below {below}, where models may lie")


def keep(path: Path, directory: Path, expected: str = "") -> Path:
    """Copy an artifact to `<directory>/<sha256>.onnx`, unless it lies there already; the path to load it from.

    A model whose weights lie in files of their own is not copied: its digest does not cover them. It is served from
    `path` if all of them lie beside it. Raises ModelError otherwise, if the artifact has another digest than
    `expected` (see `verified`), and if a file cannot be read or written.
    """
    try:
        found = verified(path, expected)
        kept = kept_path(directory, found)
        if _holds(kept, found, path.stat().st_size):
            return kept
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if weights := _copy(path, kept, found):
            _check_beside(path, weights)
            return path
    except OSError as error:
        raise ModelError(f"{path}: cannot be kept in {directory}: {error.strerror}: {error.filename}") from error
    return kept


def kept_path(directory: Path, sha256: str) -> Path:
    """Where `keep` puts the artifact with this digest."""
    return directory / f"{sha256}{_SUFFIX}"


def prune(directory: Path, needed: Collection[str]) -> list[Path]:
    """Delete the copies whose digests nobody needs, and what an interrupted `keep` left; tells which.

    For the one process that keeps, while it does not.
    """
    useless = [path for path in directory.glob(f"*{_SUFFIX}") if path.stem not in needed]
    useless += directory.glob(f".*{_UNFINISHED}")
    for path in useless:
        path.unlink(missing_ok=True)
    return useless


def _check_beside(path: Path, weights: Collection[str]) -> None:
    """onnxruntime refuses the same when it loads; here the message can say what to do."""
    for name in sorted(weights):
        if Path(name).is_absolute() or ".." in Path(name).parts or not (path.parent / name).is_file():
            raise ModelError(f"{path}: its weights are expected beside it in {name!r}, where there is no such file")


def _holds(kept: Path, sha256: str, size: int) -> bool:
    """Whether the copy is there and whole. Sizes first: reading a large file takes its time."""
    return kept.is_file() and kept.stat().st_size == size and digest(kept) == sha256


def _copy(path: Path, kept: Path, sha256: str) -> set[str]:
    """Visible under its name only when it is whole and on disk, and names no other files; returns those it names.

    They are read from the copy: a file that is cut off while it is mapped ends the process.
    """
    hidden = kept.with_name(f".{kept.stem}.{secrets.token_hex(8)}{_UNFINISHED}")
    try:
        with (
            path.open("rb") as source,
            open(os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy,
        ):
            shutil.copyfileobj(source, copy, 1 << 20)
            copy.flush()
            os.fsync(copy.fileno())
        if digest(hidden) != sha256:
            raise ModelError(f"{path}: was replaced while it was copied")
        weights = external_data(hidden, path)
        if not weights:
            hidden.replace(kept)
            _sync_directory(kept.parent)
        return weights
    finally:
        hidden.unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
