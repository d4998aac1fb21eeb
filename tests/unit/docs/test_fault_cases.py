"""The table of fault cases in tests/README.md names every case, and only tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
TABLE = (TESTS / "README.md").read_text()
DEFINED = {
    name
    for path in TESTS.rglob("test_*.py")
    if ".envs" not in path.parts
    for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
}
ROWS = {row[0]: row for row in ([cell.strip() for cell in line.split("|")[1:-1]] for line in TABLE.splitlines()) if row}


@pytest.mark.parametrize(("letter", "last"), [("U", 23), ("C", 29), ("S", 20), ("M", 11), ("L", 10)])
def test_every_case_has_a_row_with_a_test_or_a_reason(letter: str, last: int) -> None:
    for number in range(1, last + 1):
        row = ROWS.get(f"{letter}{number}")
        assert row is not None, f"{letter}{number} is not in tests/README.md"
        assert "`test_" in row[2] or row[3], f"{letter}{number} has neither a test nor a reason"


def test_every_test_that_is_named_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", TABLE))
    assert named
    assert not named - DEFINED


def test_every_test_of_a_case_is_named() -> None:
    of_cases = {name for name in DEFINED if re.match(r"test_[ucsmlk]\d+_", name)}
    assert not of_cases - set(re.findall(r"`(test_\w+)`", TABLE))
