from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.evidence.world import World


@pytest.fixture
def worlds(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes worlds, each in a folder of its own, with one worker unless told otherwise."""
    made: list[World] = []

    def make(*, shards: int = 1, **named: Any) -> World:
        world = World(tmp_path / str(len(made)), **named)
        made.append(world)
        for _ in range(shards):
            world.shard()
        return world

    yield make
    for world in made:
        world.close()


@pytest.fixture
def world(worlds: Callable[..., World]) -> World:
    return worlds()
