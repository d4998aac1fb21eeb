"""How far time is complete: idle workers, new ones, dead ones, hanging ones, damaged ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import SpoolError
from gateway.evidence import ship
from gateway.evidence.engine import REMEDY
from gateway.spool import reader
from gateway.spool.format import Header, encode_header, file_name
from gateway.spool.reader import StreamId
from tests.unit.evidence.world import SECOND, World


class Ahead:
    """A worker's clock that runs ahead of ours."""

    def __init__(self, world: World, seconds: float) -> None:
        self._world = world
        self._ahead = round(seconds * SECOND)

    def wall_us(self) -> int:
        return self._world.clock.wall_us() + self._ahead

    def monotonic(self) -> float:
        return self._world.clock.monotonic()


def test_an_assignment_votes_when_every_stream_is_past_it(world: World) -> None:
    world.assign("u", True)
    world.step()
    assert world.engine.units("exp") == 0
    world.clock.advance(1.0)
    world.shards[0].requests.heartbeat()
    world.step()
    assert world.engine.units("exp") == 0, "an outcome may still come from the other stream"
    world.shards[0].outcomes.heartbeat()
    world.step()
    assert world.engine.units("exp") == 1


def test_an_idle_worker_holds_nobody_up(world: World) -> None:
    world.shard()
    world.assign("u", True, shard=0)
    world.step(0.1)
    assert world.engine.units("exp") == 1


def test_a_worker_that_has_not_spoken_yet_holds_the_watermark(world: World) -> None:
    world.step(1.0)
    seen = world.engine.seen_through
    world.shard()
    world.clock.advance(1.0)
    world.shards[0].heartbeat()
    world.step()
    assert world.engine.seen_through <= seen
    world.shards[1].heartbeat()
    world.step()
    assert world.engine.seen_through == world.clock.wall_us()


def test_without_living_spools_time_still_passes(world: World) -> None:
    world.assign("u", True)
    world.shards.pop().die()
    world.clock.advance(1.0)
    world.step()
    assert world.engine.everything_read
    assert world.engine.units("exp") == 1
    assert world.engine.seen_through == world.clock.wall_us()


def test_a_step_in_which_nothing_happened_leaves_no_row(world: World) -> None:
    world.assign("u", True)
    world.step(1.0)
    before = world.store.last_step()
    for _ in range(5):
        world.step(0.1)
    assert world.store.last_step() == before
    assert world.engine.seen_through > before.watermark
    assert world.engine.shipped.facts["heartbeat"] == 12


def test_a_hanging_worker_is_declared_dead_and_its_later_facts_are_late(world: World) -> None:
    world.shard()
    world.step(1.0)
    hanging = world.shards[1]
    stuck_at = hanging.requests.now()
    for number in range(3):
        world.clock.advance(ship.MAX_LAG_US / 2e6 + 1)
        world.shards[0].heartbeat()
        world.assign(f"u{number}", True, shard=0)
        world.step()
    world.clock.advance(1.0)
    world.shards[0].heartbeat()
    world.step()
    assert world.engine.units("exp") == 3
    hanging.requests._clock = Ahead(world, (stuck_at - world.clock.wall_us()) / SECOND)  # it wakes up with old times
    decision = world.assign("late", True, shard=1)
    world.complete(decision)
    world.step()
    assert world.engine.units("exp") == 3
    assert world.counters == {("b", "late"): 1}
    assert world.store.exposures([decision])  # kept, and visible


def test_times_ahead_of_ours_are_capped(world: World) -> None:
    world.shard(Ahead(world, 600.0))
    decision = world.assign("future", True, shard=1)
    world.complete(decision)
    world.outcome(decision, 0.5, shard=1)
    world.step()
    world.step(ship.SKEW_US / SECOND + 0.1)
    assert world.engine.units("exp") == 1, "it votes within the skew, not in ten minutes"
    world.step(61.0)
    assert world.engine.folded("exp") == 1
    assert world.report.missing == (0.0, 0.0)


@pytest.mark.parametrize("restart", [False, True])
def test_a_damaged_stream_is_quarantined_and_freezes_promotion(
    world: World, restart: bool, caplog: pytest.LogCaptureFixture
) -> None:
    world.shard()
    path = world.folder / "spool" / file_name(2, "requests", 0)
    world.assign("good", True, shard=1)
    size = path.stat().st_size
    world.assign("bad", True, shard=1)
    world.assign("behind", True, shard=1)
    with path.open("r+b") as file:
        file.seek(size + 12)
        file.write(b"\xff\xff\xff")
    world.step(1.0)
    if restart:
        world.restart()
        world.step(1.0)
    assert world.engine.damaged.startswith(f"{path}: ")
    assert f"at byte {size}" in world.engine.damaged
    world.step(1.0)
    said = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert said == [f"{world.engine.damaged}: {REMEDY}"] * (1 + restart), "once by each process"
    assert world.engine.units("exp") == 1
    assert len(world.engine.shipped.quarantined) == 1
    assert world.engine.seen_through == world.clock.wall_us()
    for shard in world.shards:
        shard.die()
    world.shards.clear()
    world.step()
    assert world.engine.everything_read


def test_a_spool_of_another_schema_is_quarantined(world: World) -> None:
    header = Header(99, 7, "requests", 0, b"i" * 16, 0)
    (world.folder / "spool" / file_name(7, "requests", 0)).write_bytes(encode_header(header) + b"rest")
    world.step(1.0)
    assert world.engine.damaged
    assert any("schema 99" in why for why in world.engine.shipped.quarantined)


def test_a_stream_that_cannot_be_opened_holds_the_watermark(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.step(1.0)
    reached = world.engine.seen_through
    read = reader.read

    def refuse(directory: Path, stream: StreamId, *rest: object) -> object:
        if stream.stream == "outcomes":
            raise SpoolError("Too many open files")
        return read(directory, stream, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(reader, "read", refuse)
    world.assign("u", True)
    world.step(1.0)
    assert world.engine.seen_through <= reached
    assert world.engine.damaged
    monkeypatch.undo()
    world.step(1.0)
    assert not world.engine.damaged
    assert world.engine.units("exp") == 1


def test_a_record_torn_by_a_kill_is_counted_once(world: World) -> None:
    world.assign("u", True)
    path = world.folder / "spool" / file_name(1, "requests", 0)
    world.shards.pop().die()
    with path.open("ab") as file:
        file.write(b"\x20\0\0")
    world.clock.advance(1.0)
    for _ in range(3):
        world.step()
    assert world.engine.shipped.torn == 1
