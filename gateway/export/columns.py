"""Columns as people read them: what each holds, in which unit, and as which type every format has it."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

Kind = Literal[
    "integer",  # 64 bits, signed
    "number",  # a double
    "flag",  # 0 or 1
    "time",  # microseconds since the epoch
    "word",  # one of few: names of the config, words of the code
    "text",
    "hash",  # bytes
    "json",  # text
]
Row = tuple[Any, ...]


class Column(NamedTuple):
    """One column. Rows hold what the store holds; None where nothing is known."""

    name: str
    kind: Kind
    about: str
    unit: str = ""
