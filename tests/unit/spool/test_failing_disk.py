"""A disk that fails now and then, in every way that it can: what was acknowledged is there once, and nothing else."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import FakeClock
from gateway.errors import SpoolError
from gateway.events import Fact, Outcome
from gateway.spool.format import Position
from gateway.spool.reader import Batch, StreamId, read
from gateway.spool.sync import GroupSync
from gateway.spool.writer import SpoolWriter

STREAM = StreamId(1, "outcomes")
EVENTS = 10_000


def failing(chance: random.Random, act: Callable[..., Any], share: float) -> Callable[..., Any]:
    """`act`, but for a share of its calls; of those that write, half write something before they fail."""

    def call(*arguments: Any, **named: Any) -> Any:
        if chance.random() >= share:
            return act(*arguments, **named)
        if act is WRITE and chance.random() < 0.5:
            descriptor, data = arguments
            return act(descriptor, data[: chance.randrange(len(data))])
        raise OSError(chance.choice((errno.ENOSPC, errno.EIO)), "the disk fails")

    return call


WRITE = os.write


def outcome(number: int) -> Outcome:
    return Outcome(str(number), number, number, "e", "x", "m", 0.5)


def numbers(facts: list[Fact]) -> list[int]:
    return [int(fact.id) for fact in facts if isinstance(fact, Outcome)]


def everything(folder: Path) -> list[int]:
    """Of a dead writer."""
    found: list[int] = []
    batch = Batch(Position())
    while not batch.finished:
        batch = read(folder, STREAM, batch.position)
        assert not batch.corrupt
        found += numbers(batch.facts)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_what_append_returned_for_is_there_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    chance = random.Random(seed)
    writer = SpoolWriter(tmp_path, 1, "outcomes", b"i" * 16, FakeClock(), segment_bytes=20_000)
    acknowledged: list[int] = []
    read_on: list[int] = []
    position = Position()
    with monkeypatch.context() as patch:
        for name in ("write", "ftruncate", "link"):
            patch.setattr(os, name, failing(chance, getattr(os, name), 0.05))
        for number in range(EVENTS):
            try:
                writer.append(outcome(number))
                acknowledged.append(number)
            except SpoolError:
                pass
            if number % 97 == 0:  # somebody reads meanwhile
                batch = read(tmp_path, STREAM, position)
                assert not batch.corrupt
                position = batch.position
                read_on += numbers(batch.facts)
    writer.close()
    assert 0.9 * EVENTS < len(acknowledged) < 0.99 * EVENTS
    assert everything(tmp_path) == acknowledged
    assert read_on == acknowledged[: len(read_on)]
    assert len(read_on) > EVENTS // 2
    assert not list(tmp_path.glob(".*"))


def test_what_was_synced_is_there_once_and_whoever_was_refused_may_send_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(1)
    clock = FakeClock()
    writer = SpoolWriter(tmp_path, 1, "outcomes", b"i" * 16, clock, segment_bytes=20_000)
    results: list[str] = []

    async def post(sync: GroupSync, number: int) -> bool:
        try:
            writer.append(outcome(number))
            await sync.synced()
        except SpoolError:
            return False
        return True

    async def client(sync: GroupSync, mine: range) -> None:
        for number in mine:
            while not await post(sync, number):
                await asyncio.sleep(0)

    async def everybody() -> None:
        sync = GroupSync(writer, clock, lambda result, _: results.append(result))
        await asyncio.gather(*(client(sync, range(first, 2000, 20)) for first in range(20)))
        await sync.close()

    with monkeypatch.context() as patch:
        for name in ("write", "fdatasync", "link"):
            patch.setattr(os, name, failing(chance, getattr(os, name), 0.05))
        asyncio.run(everybody())
    writer.close()
    assert results.count("error") > 2
    found = everything(tmp_path)
    assert set(found) == set(range(2000))
    assert len(found) >= 2000  # a refused one may have been kept: its id tells
