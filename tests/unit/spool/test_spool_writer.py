"""What was appended is there; what was not kept leaves no trace and says so."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import events
from gateway.clock import FakeClock
from gateway.errors import SpoolError
from gateway.events import Fact, Heartbeat, Outcome
from gateway.files import is_locked
from gateway.spool.format import LONGEST, Position
from gateway.spool.reader import StreamId, read
from gateway.spool.room import Room
from gateway.spool.writer import SEGMENT_SECONDS, SpoolWriter

STREAM = StreamId(3, "outcomes")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def writer(tmp_path: Path, clock: FakeClock) -> Iterator[SpoolWriter]:
    spool = SpoolWriter(tmp_path, 3, "outcomes", b"i" * 16, clock)
    yield spool
    if spool._descriptor >= 0:
        spool.close()


def outcome(number: int, note: str = "") -> Outcome:
    return Outcome(f"{number}{note}", number, number, "e", "x", "m", 0.5)


def kept(directory: Path) -> list[Fact]:
    """Every fact, over all segments; fails on damage."""
    position, facts = Position(), []
    while True:
        batch = read(directory, STREAM, position)
        assert not batch.corrupt
        facts += batch.facts
        if batch.finished or batch.position == position:
            assert batch.torn == 0
            return facts
        position = batch.position


class Disk:
    """Stands in for `os.write`: takes `room` bytes, then behaves like a full disk."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._write = os.write

    def __call__(self, descriptor: int, data: bytes) -> int:
        part = data[: self.room]
        if not part:
            raise OSError(28, "No space left on device")
        self.room -= len(part)
        return self._write(descriptor, part)


def test_facts_come_back_in_order(writer: SpoolWriter, tmp_path: Path) -> None:
    writer.append(outcome(1))
    writer.append_all([outcome(2), outcome(3)])
    writer.heartbeat()
    assert kept(tmp_path) == [outcome(1), outcome(2), outcome(3), Heartbeat(writer.now())]


def test_every_append_is_in_the_file_before_it_returns(writer: SpoolWriter, tmp_path: Path) -> None:
    sizes = []
    for number in range(3):
        writer.append(outcome(number))
        sizes.append((tmp_path / "00000003.outcomes.000000").stat().st_size)
    assert sizes[0] < sizes[1] < sizes[2]


def test_time_does_not_go_back(writer: SpoolWriter, clock: FakeClock) -> None:
    first = writer.now()
    clock._wall_us -= 5_000_000
    assert writer.now() == first
    clock.advance(7)
    assert writer.now() == first + 2_000_000


def test_moments_are_given_once_and_time_does_not_go_back_behind_them(writer: SpoolWriter, clock: FakeClock) -> None:
    now = clock.wall_us()
    assert writer.now() == now
    assert [writer.moments(3), writer.moments(1)] == [now, now + 3]
    assert writer.now() == now + 3
    clock.advance(1)
    assert [writer.now(), writer.moments(1), writer.moments(2)] == [now + 10**6, now + 10**6, now + 10**6 + 1]


@pytest.mark.parametrize("room", [0, 1, 7, 8, 20])
def test_a_write_cut_short_is_cut_off_again(
    writer: SpoolWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    writer.append(outcome(1))
    size = (tmp_path / "00000003.outcomes.000000").stat().st_size
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", Disk(room))
        with pytest.raises(SpoolError):
            writer.append(outcome(2))
    assert (tmp_path / "00000003.outcomes.000000").stat().st_size == size
    writer.append(outcome(3))
    assert kept(tmp_path) == [outcome(1), outcome(3)]


def test_whole_records_of_a_short_write_stay_because_they_may_have_been_read(
    writer: SpoolWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = [outcome(number) for number in range(10)]
    one = 8 + len(events.encode(facts[0]))
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", Disk(3 * one + 5))
        with pytest.raises(SpoolError, match="short write"):
            writer.append_all(facts)
    writer.append(outcome(99))
    assert kept(tmp_path) == [*facts[:3], outcome(99)]


def test_a_tail_that_cannot_be_cut_is_left_behind_in_its_segment(
    writer: SpoolWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.append(outcome(1))
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", Disk(5))
        patch.setattr(os, "ftruncate", _refuse)
        with pytest.raises(SpoolError):
            writer.append(outcome(2))
        with pytest.raises(SpoolError):  # and no new segment can be made
            writer.append(outcome(2))
    writer.append(outcome(3))
    first = read(tmp_path, STREAM, Position())
    assert (first.facts, first.torn, first.position) == ([outcome(1)], 1, Position(1, 0))
    assert read(tmp_path, STREAM, first.position).facts == [outcome(3)]


def _refuse(*_: object) -> None:
    raise OSError(5, "Input/output error")


def test_segments_follow_each_other(tmp_path: Path, clock: FakeClock) -> None:
    writer = SpoolWriter(tmp_path, 3, "outcomes", b"i" * 16, clock, segment_bytes=300)
    facts = [outcome(number) for number in range(100)]
    for fact in facts:
        writer.append(fact)
    assert len(list(tmp_path.glob("00000003.outcomes.*"))) > 5
    assert kept(tmp_path) == facts
    writer.close()
    assert kept(tmp_path) == facts


def test_a_rotation_that_fails_costs_no_fact(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fact is kept when `append` returns; that the next segment cannot be made is not its fault."""
    writer = SpoolWriter(tmp_path, 3, "outcomes", b"i" * 16, clock, segment_bytes=100)
    facts = [outcome(number) for number in range(10)]
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", _refuse)
        for fact in facts:
            writer.append(fact)
    writer.append(outcome(10))
    assert kept(tmp_path) == [*facts, outcome(10)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000003.outcomes.000000", "00000003.outcomes.000001"]
    writer.close()


def test_a_fact_that_the_reader_would_take_for_damage_is_refused(writer: SpoolWriter, tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match="too long"):
        writer.append(outcome(1, "x" * LONGEST))
    writer.append(outcome(2))
    assert kept(tmp_path) == [outcome(2)]


def test_a_closed_writer_refuses_and_touches_no_file(tmp_path: Path, clock: FakeClock) -> None:
    """Its descriptor's number may belong to another file by then."""
    writer = SpoolWriter(tmp_path, 3, "outcomes", b"i" * 16, clock, segment_bytes=1)
    writer.append(outcome(1))
    writer.close()
    with (tmp_path / "other").open("wb"), pytest.raises(SpoolError, match="closed"):
        writer.append(outcome(2))
    assert (tmp_path / "other").read_bytes() == b""
    assert kept(tmp_path) == [outcome(1)]


def test_a_used_spool_number_is_refused(writer: SpoolWriter, tmp_path: Path, clock: FakeClock) -> None:
    with pytest.raises(SpoolError, match="exists"):
        SpoolWriter(tmp_path, 3, "outcomes", b"j" * 16, clock)
    writer.append(outcome(1))
    assert kept(tmp_path) == [outcome(1)]


def test_a_segment_ends_after_an_hour_whatever_is_written(
    writer: SpoolWriter, tmp_path: Path, clock: FakeClock
) -> None:
    writer.append(outcome(1))
    clock.advance(SEGMENT_SECONDS - 1)
    writer.heartbeat()
    assert segments(tmp_path) == [0]
    clock.advance(1)
    writer.heartbeat()
    writer.append(outcome(2))
    clock.advance(SEGMENT_SECONDS - 1)
    writer.heartbeat()
    assert segments(tmp_path) == [0, 1]
    assert not is_locked(tmp_path / "00000003.outcomes.000000")
    clock.advance(1)
    writer.heartbeat()
    assert segments(tmp_path) == [0, 1, 2]
    assert [fact for fact in kept(tmp_path) if isinstance(fact, Outcome)] == [outcome(1), outcome(2)]


def segments(directory: Path) -> list[int]:
    return sorted(int(path.suffix[1:]) for path in directory.glob("00000003.outcomes.*"))


def test_a_segment_ends_when_it_is_asked_to_unless_it_is_short(writer: SpoolWriter, tmp_path: Path) -> None:
    writer.append(outcome(1))
    size = (tmp_path / "00000003.outcomes.000000").stat().st_size
    writer.end_segment(size + 1)
    assert segments(tmp_path) == [0]
    writer.end_segment(size)
    writer.end_segment(size)
    assert segments(tmp_path) == [0, 1]
    writer.append(outcome(2))
    assert kept(tmp_path) == [outcome(1), outcome(2)]


def test_an_hour_that_cannot_end_its_segment_costs_no_fact(
    writer: SpoolWriter, tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.advance(SEGMENT_SECONDS)
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", _refuse)
        writer.heartbeat()
        writer.append(outcome(1))
    writer.heartbeat()
    assert segments(tmp_path) == [0, 1]
    assert outcome(1) in kept(tmp_path)


def test_beyond_the_bound_nothing_is_appended_by_any_writer_of_the_worker(tmp_path: Path, clock: FakeClock) -> None:
    room = Room()
    writers = [SpoolWriter(tmp_path, number, "outcomes", b"i" * 16, clock, room=room) for number in (3, 4)]
    record = 8 + len(events.encode(outcome(1)))
    room.most = 1000
    room.measured(1000 - 3 * record - 1)
    for writer in (writers[0], writers[1], writers[0]):
        writer.append(outcome(1))
    before = sorted((path.name, path.stat().st_size) for path in tmp_path.iterdir())
    for writer in writers:
        with pytest.raises(SpoolError, match="reached their bound"):
            writer.append_all([outcome(1), outcome(2)])
        with pytest.raises(SpoolError, match="reached their bound"):
            writer.heartbeat()
    assert sorted((path.name, path.stat().st_size) for path in tmp_path.iterdir()) == before
    room.measured(0)
    writers[0].append(outcome(2))
    assert kept(tmp_path) == [outcome(1), outcome(1), outcome(2)]
    for writer in writers:
        writer.close()


def test_a_segment_can_end_where_there_is_no_room_left(tmp_path: Path, clock: FakeClock) -> None:
    """Else what is shipped of it could never be deleted, and there would never be room again."""
    room = Room()
    writer = SpoolWriter(tmp_path, 3, "outcomes", b"i" * 16, clock, room=room)
    writer.append(outcome(1))
    room.most = 100
    room.measured(1000)
    writer.end_segment(1)
    assert segments(tmp_path) == [0, 1]
    writer.close()


LIMITED = """
import resource, signal, sys
from pathlib import Path
from gateway.clock import SystemClock
from gateway.errors import SpoolError
from gateway.events import Outcome
from gateway.spool.writer import SpoolWriter

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = SpoolWriter(Path(sys.argv[1]), 3, "outcomes", b"i" * 16, SystemClock())
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
taken = 0
for number in range(100):
    try:
        writer.append(Outcome(str(number), number, number, "e", "x", "m", 0.5))
        taken += 1
    except SpoolError:
        break
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.append(Outcome("after", 0, 0, "e", "x", "m", 0.5))
print(taken)
"""


def test_the_kernels_own_refusal_is_survived(tmp_path: Path) -> None:
    """A real short write, then a real error, both from a limit on the file's size."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, check=True)
    taken = int(done.stdout)
    ids = [fact.id for fact in kept(tmp_path) if isinstance(fact, Outcome)]
    assert 5 < taken < 100
    assert ids == [*map(str, range(taken)), "after"]
