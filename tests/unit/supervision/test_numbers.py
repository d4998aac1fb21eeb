"""Numbers of spools: counted by a node that is alone, given out in blocks where nodes share a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.numbers import NoNumber, SpoolNumbers


def test_a_node_that_is_alone_counts(tmp_path: Path) -> None:
    assert [SpoolNumbers(tmp_path).take(granted=False) for _ in range(3)] == [1, 2, 3]


def test_without_a_block_there_is_none_and_none_is_used_up(tmp_path: Path) -> None:
    numbers = SpoolNumbers(tmp_path)
    with pytest.raises(NoNumber):
        numbers.take(granted=True)
    numbers.grant(65, 2)
    assert numbers.take(granted=True) == 65


def test_blocks_are_used_up_one_after_the_other(tmp_path: Path) -> None:
    numbers = SpoolNumbers(tmp_path)
    numbers.grant(65, 2)
    numbers.grant(193, 2)
    assert numbers.left == 4
    assert [numbers.take(granted=True) for _ in range(4)] == [65, 66, 193, 194]
    assert numbers.left == 0
    with pytest.raises(NoNumber):
        numbers.take(granted=True)


def test_numbers_of_a_life_alone_are_not_used_again(tmp_path: Path) -> None:
    numbers = SpoolNumbers(tmp_path)
    for _ in range(70):
        numbers.take(granted=False)
    numbers.grant(65, 64)
    assert numbers.take(granted=True) == 71
    assert numbers.left == 57


def test_used_blocks_are_forgotten(tmp_path: Path) -> None:
    numbers = SpoolNumbers(tmp_path)
    for first in (1, 65, 129):
        numbers.grant(first, 64)
        for _ in range(64):
            numbers.take(granted=True)
    numbers.grant(193, 64)
    assert (tmp_path / "spool.blocks").read_text() == "[[193,64]]"


def test_what_the_store_knows_is_not_used_again_by_an_old_copy_of_the_folder(tmp_path: Path) -> None:
    numbers = SpoolNumbers(tmp_path)
    numbers.grant(1, 64)
    numbers.grant(65, 64)
    assert (numbers.take(granted=True), numbers.end) == (1, 129)
    numbers.withdraw(70)
    assert numbers.take(granted=True) == 71
    numbers.withdraw(200)
    assert numbers.left == 0
    assert numbers.end == 72, "the store says that it knows more"


@pytest.mark.parametrize(("file", "text"), [("spool.next", "x"), ("spool.blocks", "{}")])
def test_a_damaged_file_is_named(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(ValueError, match=file):
        SpoolNumbers(tmp_path).take(granted=True)
