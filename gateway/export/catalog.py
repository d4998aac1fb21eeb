"""Everything that can be taken out, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from gateway.export import facts, ledger, records
from gateway.export.columns import Column, Row
from gateway.export.facts import Selection
from gateway.export.moment import Moment
from gateway.export.source import OpenStore

Rows = Iterator[tuple[int, Row]]


class Table(NamedTuple):
    """A table as it leaves: rows come with their times, ascending; 0 where they have none."""

    name: str
    about: str
    columns: tuple[Column, ...]
    rows: Callable[[OpenStore, Moment, Selection], Rows]
    daily: bool = False  # grows with the traffic: a file for each day (UTC)


TABLES = {
    table.name: table
    for table in (
        Table(
            "exposures",
            "requests: who was given what, and how it ended",
            facts.EXPOSURES,
            lambda store, now, selected: facts.exposures(store, now, selected),
            daily=True,
        ),
        Table(
            "outcomes",
            "what became of exposures; the first value of an id",
            facts.OUTCOMES,
            lambda store, now, selected: facts.outcomes(store, now, selected),
            daily=True,
        ),
        Table(
            "shadows",
            "what variants that answered nobody said to copies of requests",
            facts.SHADOWS,
            lambda store, now, selected: facts.shadows(store, now, selected),
            daily=True,
        ),
        Table(
            "votes",
            "units as the statistics see them, in the order of their coins",
            facts.VOTES,
            lambda store, now, selected: facts.votes(store, now, selected),
            daily=True,
        ),
        Table(
            "decisions",
            "the ledger: what was decided, when, by whom and on what evidence",
            ledger.DECISIONS,
            lambda store, now, selected: ledger.decisions(store, now, selected),
        ),
        Table(
            "results",
            "effects with their intervals",
            records.RESULTS,
            lambda _, now, selected: records.results(now, selected),
        ),
        Table(
            "tests",
            "hypotheses with their evidence",
            records.TESTS,
            lambda _, now, selected: records.tests(now, selected),
        ),
        Table(
            "experiments",
            "every experiment that ever ran",
            records.EXPERIMENTS,
            lambda _, now, selected: records.experiments(now, selected),
        ),
        Table(
            "plans",
            "every plan that was published, of all endpoints",
            records.PLANS,
            lambda store, now, selected: records.plans(store, now, selected),
        ),
        Table(
            "steps",
            "in what order facts were folded",
            records.STEPS,
            lambda store, now, selected: records.steps(store, now, selected),
        ),
        Table(
            "counters",
            "facts that reach no verdict",
            records.COUNTERS,
            lambda _, now, selected: records.counters(now, selected),
        ),
        Table(
            "lags",
            "how long after their exposures outcomes came",
            records.LAGS,
            lambda _, now, selected: records.lags(now, selected),
        ),
        Table(
            "late",
            "facts of workers that had been given up: kept, never folded",
            records.LATE,
            lambda store, _, selected: records.late(store, selected),
        ),
    )
}
