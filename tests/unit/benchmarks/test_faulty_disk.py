"""A disk that fails as often as it is told to."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.faulty_worker import FaultyDisk


def _written(disk: FaultyDisk, path: Path, times: int) -> tuple[int, int, int]:
    """How many of so many writes of ten bytes were whole, cut short, and refused."""
    counts: Counter[int] = Counter()
    with path.open("wb") as file:
        for _ in range(times):
            try:
                counts[disk.write(file.fileno(), b"0123456789")] += 1
            except OSError:
                counts[-1] += 1
    whole, refused = counts.pop(10), counts.pop(-1)
    return whole, counts.total(), refused


def test_a_share_of_writes_is_refused_or_cut_short(tmp_path: Path) -> None:
    whole, short, refused = _written(FaultyDisk(0.2, seed=1), tmp_path / "file", 1000)
    assert whole + short + refused == 1000
    assert 60 < short < 140
    assert 60 < refused < 140
    assert 10 * whole <= (tmp_path / "file").stat().st_size < 10 * (whole + short)


def test_the_same_seed_fails_at_the_same_writes(tmp_path: Path) -> None:
    one, other = (_written(FaultyDisk(0.3, seed=7), tmp_path / "file", 100) for _ in range(2))
    assert one == other


def test_a_sync_that_fails_says_so(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        FaultyDisk(0.0, seed=1).fdatasync(file.fileno())
        with pytest.raises(OSError, match="Input/output"):
            FaultyDisk(1.0, seed=1).fdatasync(file.fileno())


def test_everything_else_is_the_systems() -> None:
    assert FaultyDisk(1.0, seed=1).getpid() == os.getpid()
