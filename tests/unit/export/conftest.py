"""Logs on both engines, made by the engine that makes them in production."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.postgres import fresh_database, migrated, postgres
from tests.unit.export.logs import Logged, make_log

__all__ = ["fresh_database", "migrated", "postgres"]


@pytest.fixture(params=["sqlite", "postgres"])
def logs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Logged]]:
    """Makes a log; one of PostgreSQL in each test."""
    made: list[Logged] = []

    def make(**named: Any) -> Logged:
        folder = tmp_path / f"log-{len(made)}"
        url = request.getfixturevalue("fresh_database") if request.param == "postgres" else ""
        made.append(make_log(folder, url, **named))
        return made[-1]

    yield make
    for log in made:
        log.world.close()


@pytest.fixture
def log(logs: Callable[..., Logged]) -> Logged:
    """Two days of two workers, with everything that a log can hold."""
    return logs()


@pytest.fixture
def sqlite_log(tmp_path: Path) -> Iterator[Logged]:
    made = make_log(tmp_path / "log")
    yield made
    made.world.close()
