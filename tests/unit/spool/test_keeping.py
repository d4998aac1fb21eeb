"""What of the spools is deleted: only what is shipped, after its time or where room gets scarce, oldest first."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import FakeClock
from gateway.files import create_locked
from gateway.spool.format import Position
from gateway.spool.keeping import FULL, Cursor, Keeper, Segment, expendable
from gateway.spool.reader import StreamId

HOUR = 3600.0
DAY = 24 * HOUR
REQUESTS, OUTCOMES = StreamId(1, "requests"), StreamId(1, "outcomes")


@dataclass(frozen=True)
class At:
    """A cursor as the store has it."""

    position: Position
    finished: bool = False


def segment(number: int, shipped_at: int | None, size: int = 10) -> Segment:
    return Segment(Path(f"{number:06d}"), number, size, shipped_at)


def numbers(segments: list[Segment]) -> list[int]:
    return [one.number for one in segments]


def test_what_was_shipped_long_enough_ago_goes() -> None:
    segments = [segment(0, 5), segment(1, 10), segment(2, 11), segment(3, None)]
    assert numbers(expendable(segments, shipped_before=10, surplus=0)) == [0, 1]


@pytest.mark.parametrize(("surplus", "gone"), [(-5, []), (0, []), (1, [2]), (10, [2]), (11, [2, 0]), (1000, [2, 0, 1])])
def test_where_room_is_scarce_the_oldest_go_before_their_time(surplus: int, gone: list[int]) -> None:
    segments = [segment(0, 5), segment(1, 5), segment(2, 3), segment(3, None, 500)]
    assert numbers(expendable(segments, shipped_before=0, surplus=surplus)) == gone


@given(
    st.lists(st.tuples(st.integers(0, 50) | st.none(), st.integers(0, 100)), max_size=20),
    st.integers(0, 50),
    st.integers(-100, 1500),
)
def test_whatever_is_there(times_and_sizes: list[tuple[int | None, int]], shipped_before: int, surplus: int) -> None:
    segments = [segment(number, at, size) for number, (at, size) in enumerate(times_and_sizes)]
    gone = expendable(segments, shipped_before, surplus)
    stays = [one for one in segments if one not in gone]
    assert all(one.shipped_at is not None for one in gone)
    shipped = [one.shipped_at for one in stays if one.shipped_at is not None]
    assert all(at > shipped_before for at in shipped)
    assert not shipped or sum(one.size for one in gone) >= surplus
    early = [one for one in gone if one.shipped_at is not None and one.shipped_at > shipped_before]
    assert all(min(shipped, default=99) >= (one.shipped_at or 0) for one in early)
    if early:  # not one more than it takes
        assert sum(one.size for one in gone[:-1]) < surplus


class Folder:
    """A spool folder whose files are so many bytes of nothing: a keeper reads names and sizes only."""

    def __init__(self, path: Path, keep: float = DAY, max_bytes: int = 1 << 40) -> None:
        self.path = path
        self.clock = FakeClock()
        self.keeper = Keeper(path, self.clock, keep, max_bytes)

    def write(self, name: str, size: int = 100) -> None:
        (self.path / name).write_bytes(b"x" * size)
        (self.path / name).chmod(0o600)

    def tidy(self, cursors: Mapping[StreamId, Cursor]) -> list[str]:
        return sorted(path.name for path in self.keeper.tidy(cursors).deleted)

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.path.iterdir())


def four(path: Path, **bounds: float) -> Folder:
    """A stream of four segments."""
    folder = Folder(path, **bounds)  # type: ignore[arg-type]
    for number in range(4):
        folder.write(f"00000001.requests.{number:06d}")
    return folder


def test_a_segment_stays_for_a_day_after_it_was_shipped(tmp_path: Path) -> None:
    folder = four(tmp_path)
    assert folder.tidy({REQUESTS: At(Position(2, 50))}) == []
    folder.clock.advance(HOUR)
    assert folder.tidy({REQUESTS: At(Position(3, 0))}) == []
    folder.clock.advance(DAY - HOUR - 1)
    assert folder.tidy({REQUESTS: At(Position(3, 0))}) == []
    folder.clock.advance(1)
    assert folder.tidy({REQUESTS: At(Position(3, 0))}) == ["00000001.requests.000000", "00000001.requests.000001"]
    folder.clock.advance(HOUR)
    assert folder.tidy({REQUESTS: At(Position(3, 0))}) == ["00000001.requests.000002"]
    folder.clock.advance(100 * DAY)
    assert folder.tidy({REQUESTS: At(Position(3, 100))}) == []  # the last one may still grow
    assert folder.names == ["00000001.requests.000003"]


def test_of_a_stream_that_is_finished_all_goes(tmp_path: Path) -> None:
    folder = four(tmp_path)
    finished = {REQUESTS: At(Position(3, 100), finished=True)}
    assert folder.tidy(finished) == []
    folder.clock.advance(DAY)
    assert len(folder.tidy(finished)) == 4


def test_what_no_cursor_knows_stays_for_ever(tmp_path: Path) -> None:
    folder = four(tmp_path, max_bytes=1)
    folder.clock.advance(1000 * DAY)
    assert folder.tidy({}) == []
    assert folder.tidy({OUTCOMES: At(Position(9, 0), finished=True)}) == []
    assert folder.tidy({REQUESTS: At(Position(0, 100))}) == []
    assert len(folder.names) == 4


def test_a_restart_neither_forgets_nor_prolongs(tmp_path: Path) -> None:
    folder = four(tmp_path)
    shipped = {REQUESTS: At(Position(1, 0))}
    folder.tidy(shipped)
    folder.clock.advance(DAY / 2)
    folder.keeper = Keeper(tmp_path, folder.clock, DAY, 1 << 40)
    assert folder.tidy(shipped) == []
    folder.clock.advance(DAY / 2)
    assert folder.tidy(shipped) == ["00000001.requests.000000"]


def test_what_was_shipped_late_stays_as_long_as_anything(tmp_path: Path) -> None:
    """The store was away for days: the file's own times are old, its day begins now."""
    folder = four(tmp_path)
    folder.clock.advance(3 * DAY)
    shipped = {REQUESTS: At(Position(1, 0))}
    assert folder.tidy(shipped) == []
    folder.clock.advance(DAY - 1)
    assert folder.tidy(shipped) == []


def test_killed_in_the_midst_of_marking_the_day_begins_anew(tmp_path: Path) -> None:
    folder = four(tmp_path)
    path = tmp_path / "00000001.requests.000000"
    os.utime(path, ns=(0, 0))  # the time is there, the mark is not
    shipped = {REQUESTS: At(Position(1, 0))}
    assert folder.tidy(shipped) == []
    assert stat.S_IMODE(path.stat().st_mode) == 0o400


def test_a_clock_that_jumps_back_only_makes_it_stay(tmp_path: Path) -> None:
    folder = four(tmp_path)
    shipped = {REQUESTS: At(Position(1, 0))}
    folder.tidy(shipped)
    folder.clock._wall_us -= 3600 * 1_000_000
    assert folder.tidy(shipped) == []
    folder.clock.advance(DAY + HOUR)
    assert folder.tidy(shipped) == ["00000001.requests.000000"]


def test_without_a_time_to_keep_shipped_segments_go_at_once(tmp_path: Path) -> None:
    folder = four(tmp_path, keep=0.0)
    assert len(folder.tidy({REQUESTS: At(Position(2, 0))})) == 2


def test_near_the_bound_the_oldest_shipped_go_early_and_the_unshipped_never(tmp_path: Path) -> None:
    folder = Folder(tmp_path, max_bytes=1000)
    for number in range(9):
        folder.write(f"00000001.requests.{number:06d}")
    for number in range(3):
        folder.write(f"00000001.outcomes.{number:06d}")
    first = {REQUESTS: At(Position(4, 0))}
    tidied = folder.keeper.tidy(first)
    assert [path.name for path in tidied.deleted] == [f"00000001.requests.{number:06d}" for number in range(4)]
    assert (tidied.bytes, tidied.unshipped) == (800, 800)
    folder.clock.advance(60)
    tidied = folder.keeper.tidy(first | {OUTCOMES: At(Position(2, 0))})
    assert [path.name for path in tidied.deleted] == ["00000001.outcomes.000000"]
    assert (tidied.bytes, tidied.unshipped) == (700, 600)
    assert tidied.bytes <= FULL * 1000


def test_of_two_streams_the_one_that_was_shipped_first_goes_first(tmp_path: Path) -> None:
    folder = Folder(tmp_path, max_bytes=1000)
    folder.write("00000001.requests.000000", 300)
    folder.write("00000002.requests.000000", 300)
    finished = At(Position(0, 300), finished=True)
    second = StreamId(2, "requests")
    assert folder.tidy({second: finished}) == []
    folder.clock.advance(1)
    assert folder.tidy({second: finished, REQUESTS: finished}) == []
    folder.write("00000003.requests.000000", 400)
    assert folder.tidy({second: finished, REQUESTS: finished}) == ["00000002.requests.000000"]


def test_files_of_others_are_counted_and_left_alone(tmp_path: Path) -> None:
    folder = Folder(tmp_path, max_bytes=100)
    folder.write("notes.txt", 60)
    folder.write("00000001.requests.000000", 50)
    tidied = folder.keeper.tidy({REQUESTS: At(Position(0, 50), finished=True)})
    assert [path.name for path in tidied.deleted] == ["00000001.requests.000000"]
    assert (tidied.bytes, tidied.unshipped) == (60, 0)


def test_what_a_kill_left_half_made_goes_after_an_hour(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    dead, living = (tmp_path / f".00000001.requests.00000{n}.ab.new" for n in range(2))
    dead.write_bytes(b"half")
    descriptor = create_locked(tmp_path / "made", b"")
    os.link(tmp_path / "made", living)
    now = folder.clock.wall_us() * 1000
    for path in (dead, living):
        os.utime(path, ns=(now, now))
    assert folder.tidy({}) == []
    folder.clock.advance(HOUR + 1)
    assert folder.tidy({}) == [dead.name]
    os.close(descriptor)


def test_what_cannot_be_deleted_is_said_once_and_still_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = four(tmp_path, keep=0.0)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        patch.setattr(os, "utime", refuse)
        for _ in range(3):
            tidied = folder.keeper.tidy({REQUESTS: At(Position(2, 0))})
            assert (tidied.deleted, tidied.bytes) == ([], 400)
    assert len(caplog.records) == 1
    assert "Read-only file system" in caplog.text
    assert len(folder.tidy({REQUESTS: At(Position(2, 0))})) == 2
