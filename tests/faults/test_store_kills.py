"""S7: kill -9 at random moments under load. The short form of `make prove ARGS="--only kills"`."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import kills

pytestmark = pytest.mark.process


@pytest.mark.parametrize(("durability", "number", "seed"), [("process", 12, 1), ("disk", 8, 2)])
def test_s7_whoever_is_killed_whatever_was_answered_or_acknowledged_is_stored_exactly_once(
    tmp_path: Path, durability: str, number: int, seed: int
) -> None:
    """A worker, the control process, the supervisor, everybody: nobody waits for anybody to come back."""
    case = kills.measure(tmp_path, number, seed, durability)
    assert case["problems"] == {}, f"seed {seed}: {case}"
    assert sum(case["kills"].values()) == number
    assert case["answered"] > 50 * number
    assert case["acknowledged"] > 25 * number
    assert case["late"] == 0, "nobody was given up"
