"""A locked file appears whole, belongs to one process, and is free the moment that process is gone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gateway.files import create_locked, is_locked


def test_the_file_is_locked_and_whole_when_it_appears(tmp_path: Path) -> None:
    path = tmp_path / "f"
    descriptor = create_locked(path, b"content")
    assert path.read_bytes() == b"content"
    assert is_locked(path)
    os.close(descriptor)
    assert not is_locked(path)


def test_the_descriptor_appends(tmp_path: Path) -> None:
    descriptor = create_locked(tmp_path / "f", b"a")
    os.write(descriptor, b"b")
    os.close(descriptor)
    assert (tmp_path / "f").read_bytes() == b"ab"


def test_a_taken_path_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        create_locked(tmp_path / "f", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_bytes() == b"old"


def test_asking_does_not_take_the_lock(tmp_path: Path) -> None:
    descriptor = create_locked(tmp_path / "f", b"")
    os.close(descriptor)
    assert [is_locked(tmp_path / "f") for _ in range(3)] == [False] * 3


def test_of_many_who_race_for_a_path_one_wins_and_keeps_its_lock(tmp_path: Path) -> None:
    path = tmp_path / "f"
    barrier = threading.Barrier(8)
    won: list[tuple[int, bytes]] = []
    lost: list[OSError] = []

    def race(number: int) -> None:
        content = b"%d" % number * 5000
        barrier.wait()
        try:
            won.append((create_locked(path, content), content))
        except OSError as error:
            lost.append(error)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert {type(error) for error in lost} == {FileExistsError}
    descriptor, content = won[0]
    assert path.read_bytes() == content
    assert is_locked(path)
    assert list(tmp_path.iterdir()) == [path]
    os.close(descriptor)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", lambda _, data: len(data) - 1)
    with pytest.raises(OSError, match="short write"):
        create_locked(tmp_path / "f", b"content")
    assert not list(tmp_path.iterdir())


def test_the_lock_does_not_pass_to_children(tmp_path: Path) -> None:
    """Else a worker's spool would look alive as long as any process that it started."""
    path = tmp_path / "f"
    descriptor = create_locked(path, b"")
    program = "print('up', flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", program], close_fds=False, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()
    try:
        os.close(descriptor)
        assert not is_locked(path)
    finally:
        child.communicate(b"\n")


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        is_locked(tmp_path / "f")
