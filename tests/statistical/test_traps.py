"""Every trap, short: the same functions with more runs are part of `make prove`."""

from __future__ import annotations

import pytest

from tests.statistical.traps import SEED, TRAPS


@pytest.mark.parametrize("name", [name for name, trap in TRAPS.items() if trap.short])
def test_trap(name: str) -> None:
    measured = TRAPS[name].run(TRAPS[name].short, SEED)
    assert measured
    assert [one.record() for one in measured if not one.passed] == []
