"""Numbers of spools: each is used once, by one worker, in all nodes that share a store.

A node whose store lies in its data directory counts from 1. A store elsewhere may have seen other nodes, or other lives
of this one whose directory is gone: it gives out blocks of numbers. The control process asks for them in time (`grant`)
and the supervisor uses them up (`take`), which needs no store.
"""

from __future__ import annotations

from pathlib import Path

import msgspec


class NoNumber(ValueError):
    """None is left: the store has to give out more."""


class SpoolNumbers:
    """The numbers of one data directory. One process takes, another grants."""

    def __init__(self, data_dir: Path) -> None:
        self._next = data_dir / "spool.next"
        self._blocks = data_dir / "spool.blocks"

    def take(self, *, granted: bool) -> int:
        """A number that was never used, `granted` by a store or not; only the holder of the directory's lock asks.

        Raises NoNumber, ValueError if a file holds something else, OSError.
        """
        number = self._number()
        if granted:
            number = self._within_blocks(number)
        _replace(self._next, str(number + 1).encode())
        return number

    @property
    def left(self) -> int:
        """How many of the granted numbers are unused."""
        number = self._number()
        return sum(max(0, first + count - max(first, number)) for first, count in self._granted())

    @property
    def end(self) -> int:
        """The first number beyond all that were used or granted."""
        return max([self._number(), *map(sum, self._granted())])

    def withdraw(self, through: int) -> None:
        """The store knows the numbers up to this one: what is granted of them is used, whatever the folder says."""
        granted = self._granted()
        left = [(max(first, through + 1), first + count) for first, count in granted]
        useful = [(first, end - first) for first, end in left if first < end]
        if useful != granted:
            _replace(self._blocks, msgspec.json.encode(useful))

    def grant(self, first: int, count: int) -> None:
        """Add a block of numbers, which lies above all blocks before."""
        number = self._number()
        useful = [block for block in self._granted() if sum(block) > number]
        _replace(self._blocks, msgspec.json.encode([*useful, (first, count)]))

    def _number(self) -> int:
        try:
            return int(self._next.read_text()) if self._next.exists() else 1
        except ValueError as error:
            raise ValueError(f"{self._next}: holds no number of a spool") from error

    def _granted(self) -> list[tuple[int, int]]:
        try:
            return msgspec.json.decode(self._blocks.read_bytes(), type=list[tuple[int, int]])
        except FileNotFoundError:
            return []
        except msgspec.DecodeError as error:
            raise ValueError(f"{self._blocks}: holds no blocks of numbers: {error}") from error

    def _within_blocks(self, number: int) -> int:
        """The first granted number that is not below this one: numbers used ascend."""
        for first, count in self._granted():
            if number < first + count:
                return max(number, first)
        raise NoNumber("the store has given out no number for it yet")


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".new" if path.suffix == ".next" else f"{path.suffix}.new")
    temporary.write_bytes(content)
    temporary.replace(path)
