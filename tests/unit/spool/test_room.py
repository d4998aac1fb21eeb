"""How much the spools may still grow, as one worker knows it."""

from __future__ import annotations

from pathlib import Path

from gateway.spool.room import UNBOUNDED, Room, used


def test_without_a_bound_there_is_always_room() -> None:
    room = Room()
    room.measured(1 << 50)
    assert not room.full
    assert room.short_segments == 0
    assert room.left == UNBOUNDED - (1 << 50)


def test_what_is_left_is_the_bound_less_what_is_there_and_what_was_written_since() -> None:
    room = Room(1000)
    room.measured(600)
    assert room.left == 400
    room.left -= 399
    assert not room.full
    room.left -= 1
    assert room.full
    room.measured(100)
    assert room.left == 900
    room.most = 50
    room.measured(100)
    assert room.full


def test_segments_are_short_once_half_of_the_room_is_taken() -> None:
    room = Room(256_000)
    room.measured(128_000)
    assert room.short_segments == 0
    room.measured(128_001)
    assert room.short_segments == 1000


def test_all_files_of_a_folder_are_counted(tmp_path: Path) -> None:
    assert used(tmp_path) == 0
    (tmp_path / "a").write_bytes(b"x" * 100)
    (tmp_path / ".b").write_bytes(b"x" * 50)
    assert used(tmp_path) == 150
