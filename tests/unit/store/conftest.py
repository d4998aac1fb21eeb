"""The engines under contract. Another engine joins by one more entry in `ENGINES`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.store.base import Store
from gateway.store.sqlite import SqliteStore

ENGINES: dict[str, Callable[[Path], Store]] = {"sqlite": lambda folder: SqliteStore(folder / "gateway.db")}


@pytest.fixture(params=sorted(ENGINES))
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Opens the same store once more."""
    return lambda: ENGINES[request.param](tmp_path)


@pytest.fixture
def store(reopen: Callable[[], Store]) -> Iterator[Store]:
    opened = reopen()
    yield opened
    opened.close()
