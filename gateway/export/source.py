"""What a person names when they mean a store: its URL, its file, or the config of a gateway."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from gateway.errors import GatewayError, StoreError
from gateway.store.open import POSTGRES, SQLITE, open_store

if TYPE_CHECKING:
    from gateway.store.open import AnyStore

OpenStore: TypeAlias = "AnyStore"

_MAGIC = b"SQLite format 3\0"
_EXPECTED = "a config, the file of a store, sqlite:///PATH or postgresql://USER@HOST/DATABASE"


class SourceError(GatewayError):
    """What was named is no store."""

    reason = "source"


class Named(NamedTuple):
    """A store that somebody named."""

    url: str
    folder: Path | None  # the data directory of its gateway: as its config says, or where its file lies


def named(text: str) -> Named:
    """What is meant. Raises SourceError, or ConfigError if it is a config that cannot be taken."""
    if text.startswith((SQLITE, *POSTGRES)):
        path = path_of(text)
        return Named(text, path.absolute().parent if path else None)
    if "://" in text:
        raise SourceError(f"{without_password(text)}: expected {_EXPECTED}")
    path = Path(text)
    try:
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}: expected {_EXPECTED}") from error
    if head == _MAGIC:
        return Named(f"{SQLITE}{path.absolute()}", path.absolute().parent)
    from gateway.config.load import load  # pydantic and YAML, which a notebook on a store does not need

    config = load(path, serving=False).config
    return Named(config.store, config.data_dir)


def url_of(text: str) -> str:
    """The URL of the store that is meant; raises as `named` does."""
    return named(text).url


def path_of(url: str) -> Path | None:
    """The file of a SQLite store; None for another engine."""
    return Path(url.removeprefix(SQLITE)) if url.startswith(SQLITE) else None


def without_password(url: str) -> str:
    """For messages and manifests."""
    return re.sub(r"(://[^/@]*?):[^/@]*@", r"\1:***@", re.sub(r"([?&]password=)[^&]*", r"\1***", url))


def open_readable(url: str) -> OpenStore:
    """A store that is only looked at. Raises StoreError if there is none, or if its schema is another."""
    path = path_of(url)
    if path is not None and not path.exists():
        raise StoreError(f"{path}: there is no store yet: serve from its config first")
    return open_store(url, read_only=True)


@contextmanager
def reading(url: str) -> Iterator[OpenStore]:
    """A store that is only looked at, closed at the end; the engine's own errors become StoreError."""
    store = open_readable(url)
    try:
        yield store
    except sqlite3.Error as error:  # while rows are streamed
        raise StoreError(f"{without_password(url)}: {error}") from error
    finally:
        store.close()
