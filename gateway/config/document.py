"""A config file as plain data that remembers where each part stood."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from gateway.errors import ConfigError, ConfigProblem

Value: TypeAlias = str | int | float | bool | list["Value"] | dict[str, "Value"] | None
Steps: TypeAlias = tuple[str | int, ...]  # the way from the root of the file to a value


class Place(NamedTuple):
    """Line and column, both from 1."""

    line: int
    column: int


@dataclass(slots=True)
class Document:
    """A file as plain data, where its parts stand, and what was wrong with its spelling."""

    file: str
    data: Value = None
    places: dict[Steps, Place] = field(default_factory=dict)
    keys: dict[Steps, Place] = field(default_factory=dict)
    written: dict[Steps, str] = field(default_factory=dict)  # scalars as they stand in the file
    problems: list[ConfigProblem] = field(default_factory=list)
    spoilt: set[Steps] = field(default_factory=set)  # parts whose spelling was refused

    def place(self, steps: Steps, *, key: bool = False) -> Place:
        """Where to point for `steps`: the nearest part around it that stands in the file."""
        if key and steps in self.keys:
            return self.keys[steps]
        while steps and steps not in self.places:
            steps = steps[:-1]
        return self.places.get(steps, Place(1, 1))

    def problem(self, steps: Steps, message: str, *, key: bool = False) -> ConfigProblem:
        line, column = self.place(steps, key=key)
        return ConfigProblem(self.file, line, dotted(steps), message, column)

    def is_spoilt(self, steps: Steps) -> bool:
        """Whether `steps` lies in a part whose spelling was refused: more words about it would mislead."""
        return any(steps[:length] in self.spoilt for length in range(len(steps) + 1))


def dotted(steps: Steps) -> str:
    """`("stages", 0, "traffic")` as `stages[0].traffic`."""
    parts = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps]
    return "".join(parts).removeprefix(".")


def fatal(file: str, message: str, place: Place | None = None) -> ConfigError:
    """The error of a file in which nothing more can be looked for."""
    line, column = place or (0, 0)
    return ConfigError([ConfigProblem(file, line, "", message, column)])
