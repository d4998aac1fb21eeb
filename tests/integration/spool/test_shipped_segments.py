"""Segments that are in the store are deleted under the shipper, which misses nothing and is confused by nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.spool.keeping import Keeper, Tidied
from gateway.spool.reader import StreamId, discover
from tests.unit.evidence.world import World

DAY = 86400.0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.shard()
    yield world
    world.close()


def tidy(world: World, keep: float = 0.0) -> Tidied:
    """As the control process does, with the cursors that are committed."""
    return Keeper(world.folder / "spool", world.clock, keep, 1 << 40).tidy(world.store.streams())


def end_segments(world: World) -> None:
    for writer in (world.shards[0].requests, world.shards[0].outcomes):
        writer.end_segment(1)


def names(world: World) -> list[str]:
    return sorted(path.name for path in (world.folder / "spool").iterdir())


def rounds(world: World, number: int, *, tidily: bool) -> None:
    """So many segments of each stream, each shipped before the next; some seen only by a restarted process."""
    for each in range(number):
        world.whole(each, each % 2 == 0, 0.25)
        world.pass_time(1)
        world.step()
        end_segments(world)
        if each % 3 == 1:
            world.restart()
        world.step(1)
        if tidily:
            assert tidy(world).unshipped < 1000
            assert len(names(world)) <= 4


def test_deleting_what_is_shipped_changes_nothing(tmp_path: Path) -> None:
    worlds = []
    for name in ("kept", "deleted"):
        (tmp_path / name).mkdir()
        world = World(tmp_path / name)
        world.shard()
        rounds(world, 12, tidily=name == "deleted")
        world.settle()
        assert not world.engine.damaged
        worlds.append(world)
    kept, deleted = worlds
    assert kept.votes == deleted.votes
    assert len(kept.votes) == 12
    assert kept.states == deleted.states
    assert len(names(kept)) > 3 * len(names(deleted))
    kept.close()
    deleted.close()


def test_what_is_not_in_the_store_yet_is_never_deleted(world: World) -> None:
    for each in range(5):
        world.whole(each, each % 2 == 0, 0.25)
        end_segments(world)
    everything = names(world)
    assert len(everything) == 12
    assert tidy(world).deleted == []
    for _ in range(6):
        world.step(1)
        tidy(world)
        reached = {f"{one.spool:08d}.{one.stream}": at.position.segment for one, at in world.store.streams().items()}
        assert names(world) == [name for name in everything if int(name[-6:]) >= reached[name[:-7]]]
    world.settle()
    assert len(world.votes) == 5
    assert set(reached.values()) == {5}


def test_a_stream_whose_writer_is_dead_goes_to_its_last_file(world: World) -> None:
    world.whole(1, True, 0.25)
    world.pass_time(1)
    world.shards.pop().die()
    world.step()
    assert len(tidy(world, keep=DAY).deleted) == 0
    world.clock.advance(DAY)
    assert len(tidy(world, keep=DAY).deleted) == 2
    assert names(world) == []
    world.restart()
    world.engine.step()
    assert not world.engine.damaged
    assert world.engine.everything_read
    assert world.store.streams()[StreamId(1, "requests")].finished  # so nobody takes its number for a new one


def test_streams_are_found_by_what_is_left_of_them(world: World) -> None:
    rounds(world, 3, tidily=True)
    assert min(int(name[-6:]) for name in names(world)) > 0
    assert discover(world.folder / "spool") == [StreamId(1, "outcomes"), StreamId(1, "requests")]
