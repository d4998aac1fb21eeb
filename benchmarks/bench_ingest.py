"""What it costs to take facts in: shipped, joined and folded into SQLite and PostgreSQL; and outcomes to be taken in.

`python -m benchmarks.bench_ingest --json` takes about eight minutes on two cores: facts and requests in CPU time of a
control process without ports, outcomes through a real worker and wrk on the other core. Growth goes to a million facts
here; `python -m benchmarks.prove --only ingest` goes to ten.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click

from benchmarks import ingest_control as control
from benchmarks.bench_tables import ingest_table
from benchmarks.ingest_outcomes import BATCH, bench
from benchmarks.rounds import Figures, Rounds, Subjects, command
from benchmarks.stats_common import Measured

NAME = "ingest"
CODE = ("gateway/**/*.py", "gateway/**/*.sql", "benchmarks/ingest_*.py", "benchmarks/control_node.py")
FACTS_PER_S = 120_000.0  # shipped into SQLite, in a second of one core
REQUEST_US = 20.0  # of the control process
OUTCOMES_PER_S = {"batches": 20_000.0, "one by one": 3_000.0}  # of one core, worker and control process
GROWTH = 2.0  # of what a fact costs, from the smallest store to the largest
ROUNDS, GROWTH_ROUNDS, BEHIND = 60, 20, 20
SIZES = (10_000, 100_000, 1_000_000)
GROWTHS = {"SQLite, to ten million": (*SIZES, 10_000_000), "PostgreSQL, to a million": SIZES}
SHIP, BACKLOG = "ship", "ship a backlog"
RETURNING, POSTED, NEW = "users return", "users return, outcomes posted", "every user new"
_CASES = {RETURNING: "outcome metric", POSTED: "outcomes posted", NEW: "every user new"}
GROW = "growth"
_POSTGRES = "postgresql: "
_LEVELS = ("process", "disk")


@contextmanager
def subjects(folder: Path, seconds: int) -> Iterator[Subjects]:
    """Everything by name; a gateway, or a server of PostgreSQL, runs only while it is measured."""
    yield {
        SHIP: partial(control.shipped, ROUNDS),
        BACKLOG: partial(control.shipped, ROUNDS // BEHIND, BEHIND),
        **{name: partial(control.requests, case, ROUNDS) for name, case in _CASES.items()},
        **{f"outcomes, {level}": partial(_outcomes, folder, level, seconds) for level in _LEVELS},
        **{_POSTGRES + name: partial(_postgres, name) for name in (SHIP, RETURNING, NEW)},
        GROW: partial(grown, SIZES),
    }


def grown(sizes: tuple[int, ...], store: str = "") -> Figures:
    """Microseconds of a fact by the number of facts that are there; and how much dearer the largest store is."""
    found = list(control.growth(sizes, GROWTH_ROUNDS, store))
    figures: Figures = {}
    for one in found:
        figures |= {f"us_{one.facts}": one.cpu_us, f"us_wall_{one.facts}": one.wall_us}
        figures |= {f"{stage}_{one.facts}": us for stage, us in one.stages.items()}
    least, most = found[0], found[-1]
    return {**figures, "growth": most.cpu_us / least.cpu_us, "growth_wall": most.wall_us / least.wall_us}


def grown_to(key: str) -> Figures:
    """The growth of one store, by its key in `GROWTHS`."""
    if key.startswith("SQLite"):
        return grown(GROWTHS[key])
    with _server() as store:
        return grown(GROWTHS[key], store)


def large_goals(cases: Mapping[str, Figures]) -> Iterator[Measured]:
    """Of SQLite; what PostgreSQL costs is told beside it."""
    for key, sizes in GROWTHS.items():
        if key.startswith("SQLite"):
            yield from growth_goals(cases[key]["growth"], cases[key]["growth_wall"], sizes, 1)


def goals(rounds: Rounds) -> Iterator[Measured]:
    """Against the limits of the design; PostgreSQL has none of its own."""
    count = len(rounds.of(SHIP))
    for name in (SHIP, BACKLOG):
        rate = rounds.median(name, "facts_per_s")
        yield Measured(NAME, f"{name}: facts per second of one core, SQLite", rate, FACTS_PER_S, count, at_least=True)
    yield Measured(NAME, f"CPU µs of a request, {RETURNING}, SQLite", rounds.median(RETURNING, "us"), REQUEST_US, count)
    for level in _LEVELS:
        for how, least in OUTCOMES_PER_S.items():
            cost = rounds.median(f"outcomes, {level}", f"{_word(how)}_cpu_us")
            what = f"outcomes per CPU second of worker and control process, {how}, level {level}"
            yield Measured(NAME, what, 1e6 / cost, least, count, at_least=True)
    yield from growth_goals(rounds.median(GROW, "growth"), rounds.median(GROW, "growth_wall"), SIZES, count)


def growth_goals(cpu: float, wall: float, sizes: tuple[int, ...], count: int) -> Iterator[Measured]:
    for what, value in (("CPU", cpu), ("wall", wall)):
        about = f"{what} time of a fact with {sizes[-1]:,} facts over that with {sizes[0]:,}, SQLite"
        yield Measured(NAME, about, value, GROWTH, count)


def _outcomes(folder: Path, level: str, seconds: int) -> Figures:
    with bench(folder, level, seconds) as own:
        sizes = {"batches": BATCH, "one by one": 1}
        found = {how: own.measure(size) for how, size in sizes.items()}
    return {f"{_word(how)}_{figure}": value for how, case in found.items() for figure, value in case.items()}


def _word(how: str) -> str:
    return how.replace(" ", "_")


def _postgres(name: str) -> Figures:
    with _server() as store:
        if name == SHIP:
            return control.shipped(ROUNDS, store=store)
        return control.requests(_CASES[name], ROUNDS, store)


@contextmanager
def _server() -> Iterator[str]:
    """The URL of an empty store on a server of its own, which writes to the disk as it should."""
    from tests.postgres import PostgresServer  # drags pytest in

    with PostgresServer(fsync="on", full_page_writes="on") as server:
        yield server.dsn(server.create())


main: click.Command = command(NAME, subjects, goals, ingest_table, compared=(SHIP, RETURNING, GROW), rounds=5)

if __name__ == "__main__":
    main()
