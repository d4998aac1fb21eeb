"""Alternating rounds: every server in turn inside each round, medians and spread over the rounds, ratios inside them.

Figures of two runs are never compared: the machine moves more between two runs than between two servers of one.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import click

from benchmarks.processes import prepare
from benchmarks.results_file import Case, ResultsFile, revision
from benchmarks.servers import versions
from benchmarks.stats_common import Measured

Figures = dict[str, float]
Subjects = Mapping[str, Callable[[], Figures]]
Spread = dict[str, float]  # median, low, high
_AT_LEAST_ONE = click.IntRange(min=1)


class Rounds:
    """The rounds of one benchmark: measured, summed up, compared, kept as JSON."""

    def __init__(self, name: str, about: Mapping[str, Any], *, kept: bool) -> None:
        self._program = {"revision": revision()}  # of what is measured, not of what the tree holds an hour later
        self._results = ResultsFile[Case](name, about=dict(about), kept=kept)

    def run(self, subjects: Subjects, rounds: int) -> None:
        """Measure every subject once in each round; the order turns, so that nobody always follows the same one."""
        names = list(subjects)
        keys = [
            f"{number + 1}/{names[(number + turn) % len(names)]}"
            for number in range(rounds)
            for turn in range(len(names))
        ]
        self._results.run(keys, lambda key: subjects[key.partition("/")[2]](), say)

    def of(self, name: str) -> list[Figures]:
        """The figures of one subject, round by round."""
        ordered = sorted(self._results.cases.items(), key=lambda item: int(item[0].partition("/")[0]))
        return [case for key, case in ordered if key.partition("/")[2] == name]

    def median(self, name: str, figure: str) -> float:
        return statistics.median(case[figure] for case in self.of(name))

    def ratio(self, name: str, figure: str, to: str, of: str = "") -> float:
        """Median over the rounds of one subject's figure over another's (figure `of`) in the same round."""
        pairs = zip(self.of(name), self.of(to), strict=True)
        return statistics.median(one[figure] / other[of or figure] for one, other in pairs)

    def finish(self, goals: Iterable[Measured]) -> int:
        """Add summary and goals to the document, print them; returns how many goals were missed."""
        records = list(goals)
        self._results.about |= {"summary": self.summary(), "goals": [one.record() for one in records]}
        self._results.save(self._program)
        for one in records:
            verdict = "met   " if one.passed else "MISSED"
            say(f"{verdict} {one.what}: {one.value:.3g} (limit {'>=' if one.at_least else '<='} {one.limit:.3g})")
        return sum(not one.passed for one in records)

    def summary(self) -> dict[str, dict[str, Spread]]:
        """Median, lowest and highest of every figure, by subject."""
        names = dict.fromkeys(key.partition("/")[2] for key in self._results.cases)
        return {name: _spreads(self.of(name)) for name in names}


def command(
    name: str,
    subjects: Callable[..., AbstractContextManager[Subjects]],
    goals: Callable[[Rounds], Iterable[Measured]],
    table: Callable[[Mapping[str, Any]], str],
    *,
    compared: Iterable[str],
    rounds: int = 5,
    seconds: int = 4,
    once: Iterable[str] = (),
    sizes: Iterable[click.Option] = (),
) -> click.Command:
    """The command line of a benchmark; it exits with 1 if a goal is missed.

    `subjects` takes a scratch folder, the seconds of each load, and further `sizes` by name. Those named in `once`
    are measured in one round only. `goals` are judged where all subjects `compared` were measured.
    """

    @click.command(help=f"Measure in alternating rounds, print table and goals: {name}.")
    @click.option("--json", "kept", is_flag=True, help=f"Write benchmarks/results/{name}.json.")
    @click.option("--rounds", default=rounds, show_default=True, type=_AT_LEAST_ONE, help="Rounds of all subjects.")
    @click.option("--seconds", default=seconds, show_default=True, type=_AT_LEAST_ONE, help="Length of each load.")
    @click.option("--only", multiple=True, help="Subjects to measure, by default all; repeatable.")
    def main(kept: bool, rounds: int, only: tuple[str, ...], **sizes: int) -> None:
        prepare()
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, subjects(Path(folder), **sizes) as every:
            chosen = _chosen(every, only)
            bench = Rounds(name, {**sizes, "versions": versions(chosen)}, kept=kept)
            bench.run({one: run for one, run in chosen.items() if one not in once}, rounds)
            bench.run({one: run for one, run in chosen.items() if one in once}, 1)
        missed = bench.finish(goals(bench) if set(compared) <= set(chosen) else ())
        click.echo(table(bench.summary()))
        raise SystemExit(1 if missed else 0)

    main.params.extend(sizes)
    return main


def _chosen(every: Subjects, only: tuple[str, ...]) -> Subjects:
    if unknown := sorted(set(only) - set(every)):
        raise click.BadParameter(f"{', '.join(unknown)}; there are {', '.join(every)}", param_hint="--only")
    return {name: run for name, run in every.items() if not only or name in only}


def say(line: str) -> None:
    click.echo(line, err=True)


def _spreads(cases: list[Figures]) -> dict[str, Spread]:
    figures = dict.fromkeys(figure for case in cases for figure in case)
    return {figure: _spread([case[figure] for case in cases if figure in case]) for figure in figures}


def _spread(values: list[float]) -> Spread:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}
