"""The long proofs, resumable: `make prove` runs what is not yet measured for this revision.

demo-http    every scenario over real HTTP, through `gateway demo --json`
demo-clock   the same through the same composition roots under a fake clock, over many more seeds
traps        the recipes that fool other tests, through evidence, verdict and policy (`traps`), kept likewise
reload       edits and promotions under load: no failed request, no unit moved (`bench_reload`)
fuzz         what reads bytes of strangers, under random damage for a set time (`fuzz`)
soak         a node under mixed load and faults for minutes: memory, descriptors and requests stay flat (`soak`)
slow         a usual client beside a thousand slow ones (`slow`)
kills        200 times kill -9 under load: every answer and every acknowledged outcome is there once (`kills`)
outage       what the store or its disk may do to a node under load (`outage`)
cluster      three nodes on one PostgreSQL: its outages, restarts, dead and paused leaders (`cluster`)
ingest       what a fact costs where ten million are there (`bench_ingest`)
crowded      the champion beside a challenger that takes a core, the metrics of fifty experiments (`crowded`)
statistics   the goals of `gateway.stats` by simulation (`stats_plan`), kept as long as its code stays the same
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from benchmarks import fuzz, nothing_lost, slow, soak, stats_plan
from benchmarks.bench_tables import bench_table
from benchmarks.processes import prepare
from benchmarks.results_file import ROOT, Case, ResultsFile
from benchmarks.stats_common import Measured
from benchmarks.tables import (
    SCENARIOS,
    endings_table,
    fuzz_table,
    goals_table,
    growth_table,
    reload_table,
    statistics_table,
    traps_table,
)

BENCHES = ("proxy", "onnx", "openai", "flat", "ingest")
LOST = {proof.name: proof for proof in (nothing_lost.KILLS, nothing_lost.OUTAGE, nothing_lost.CLUSTER)}
PROOFS = (
    "statistics",
    "traps",
    "reload",
    "demo-clock",
    "demo-http",
    "fuzz",
    "soak",
    "slow",
    *LOST,
    "ingest",
    "crowded",
)
README = ROOT / "README.md"
TESTS = ROOT / "tests" / "README.md"
TRAPS = ROOT / "tests" / "statistical" / "README.md"
TRAPS_CODE = ("gateway/stats/*.py", "gateway/evidence/*.py", "gateway/release/*.py", "tests/statistical/*.py")
STATISTICS_CODE = ("gateway/stats/*.py", "benchmarks/stats_*.py")
_KEPT = ("decision", "stage", "units", "challenger_units", "harmed_share", "failed_requests", "reason", "seconds")
RELOADS, RATE = 100, 500  # changes; requests a second
_TIMED = ("G13",)
"""Goals that measure time: they run alone, after the others."""


@click.command()
@click.option("--http-seeds", default=5, show_default=True, help="Seeds of each scenario over real HTTP.")
@click.option("--clock-seeds", default=100, show_default=True, help="Seeds of each scenario under a fake clock.")
@click.option("--only", type=click.Choice(PROOFS), help="One proof instead of all.")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(min=1), help="Processes for the statistics.")
@click.option("--skip", multiple=True, type=click.Choice(list(stats_plan.GOALS)), help="Leave out a goal; repeatable.")
@click.option("--fuzz-seconds", default=60.0, show_default=True, help="Of each module of tests/fuzz, at least.")
@click.option("--soak-minutes", default=5.0, show_default=True, help="Of load.")
@click.option("--slow-rounds", default=5, show_default=True, type=click.IntRange(min=1), help="Pairs of each kind.")
@click.option("--readme", is_flag=True, help="Only write the README tables from the results that are there.")
def main(
    http_seeds: int,
    clock_seeds: int,
    only: str | None,
    jobs: int,
    skip: tuple[str, ...],
    fuzz_seconds: float,
    soak_minutes: float,
    slow_rounds: int,
    readme: bool,
) -> None:
    """Run the long proofs and write the tables of the README files from their results."""
    if not readme:
        if only in (None, "statistics"):
            prove_statistics(jobs, skip)
        if only in (None, "traps"):
            prove_traps()
        if only in (None, "reload"):
            prove_reload()
        if only in (None, "demo-clock"):
            _run("demo-clock", clock_seeds, _under_fake_clock)
        if only in (None, "demo-http"):
            _run("demo-http", http_seeds, _over_http)
        if only in (None, "fuzz"):
            prove_decoders(fuzz_seconds)
        if only in (None, "soak"):
            prove_rest(soak_minutes)
        if only in (None, "slow"):
            prove_patience(slow_rounds)
        for name, proof in LOST.items():
            if only in (None, name):
                prove_nothing_lost(proof)
        if only in (None, "ingest"):
            prove_growth()
        if only in (None, "crowded"):
            prove_crowd()
    tables: list[tuple[str, Path, Callable[[], str]]] = [
        ("prove", README, endings_table),
        ("statistics", README, statistics_table),
        ("traps", TRAPS, traps_table),
        ("reload", README, reload_table),
        ("fuzz", TESTS, fuzz_table),
        *((name, TESTS, partial(goals_table, name)) for name in ("soak", "slow", "crowded", *LOST)),
        ("growth", README, growth_table),
        *((name, README, partial(bench_table, name)) for name in BENCHES),  # `make bench` measures them
    ]
    for mark, page, table in tables:
        page.write_text(between(page.read_text(), mark, table()))


def between(text: str, mark: str, made: str) -> str:
    """The text with what stands between the marks replaced."""
    start, end = f"<!-- {mark}:start -->\n", f"<!-- {mark}:end -->"
    before, rest = text.split(start)
    return before + start + made + end + rest.split(end)[1]


def prove_statistics(jobs: int, skip: tuple[str, ...] = ()) -> None:
    results = ResultsFile[list[Case]]("statistics", code=STATISTICS_CODE)
    results.load()
    keys = [key for key in stats_plan.CASES if stats_plan.goal_of(key) not in skip]
    timed = [key for key in keys if key in _TIMED]
    results.run([key for key in keys if key not in timed], stats_plan.measure, _say, jobs)
    results.run(timed, stats_plan.measure, _say)


def prove_traps() -> None:
    from benchmarks import traps  # drags the tests in

    results = ResultsFile[Case]("traps", code=TRAPS_CODE)
    results.load()
    results.run(traps.CASES, lambda name: traps.CASES[name](), _say)


def prove_reload() -> None:
    from benchmarks.bench_reload import measure

    results = ResultsFile[Case]("reload", code=("gateway/**/*.py", "benchmarks/bench_reload.py"))
    results.load()
    with TemporaryDirectory(prefix="reload-") as folder:
        results.run([f"{RELOADS} changes"], lambda _: measure(Path(folder), RELOADS, RATE), _say)


def prove_decoders(seconds: float) -> None:
    results = ResultsFile[Case]("fuzz", code=fuzz.CODE)
    results.load()
    results.run(fuzz.MODULES, lambda module: fuzz.measure(module, seconds), _say)


def prove_rest(minutes: float) -> None:
    """That a node comes to rest: nothing grows, nothing is left over."""
    prepare()
    results = ResultsFile[Case]("soak", code=soak.CODE)
    results.load()
    key = f"{minutes:g} minutes"
    results.run([key], lambda _: soak.measure(minutes, _say), _say)
    _tell(results.cases[key]["goals"])


def prove_patience(rounds: int) -> None:
    results = ResultsFile[Case]("slow", code=slow.CODE)
    _against_goals(
        results, slow.keys(rounds), slow.bench, partial(slow.goals, rounds=rounds), f"goals of {rounds} rounds"
    )


def prove_crowd() -> None:
    from benchmarks import crowded  # drags the tests in

    results = ResultsFile[Case]("crowded", code=crowded.CODE)
    _against_goals(results, crowded.keys(), crowded.bench, crowded.goals, "goals")


def prove_nothing_lost(proof: nothing_lost.Proof) -> None:
    results = ResultsFile[Case](proof.name, code=proof.code)
    _against_goals(results, list(proof.cases), lambda: nullcontext(proof.measure), proof.goals, "goals")


def prove_growth() -> None:
    from benchmarks import bench_ingest

    results = ResultsFile[Case]("growth", code=bench_ingest.CODE)
    _against_goals(
        results,
        list(bench_ingest.GROWTHS),
        lambda: nullcontext(bench_ingest.grown_to),
        bench_ingest.large_goals,
        "goals",
    )


def _against_goals(
    results: ResultsFile[Case],
    keys: list[str],
    bench: Callable[[], AbstractContextManager[Callable[[str], Case]]],
    goals: Callable[[dict[str, Case]], Iterable[Measured]],
    name: str,
) -> None:
    """Cases that share a bench, and a last one that holds them against the goals."""
    prepare()
    results.load()
    if not set(keys) <= results.cases.keys():
        with bench() as measure:
            results.run(keys, measure, _say)
    results.run([name], lambda _: {"goals": [one.record() for one in goals(results.cases)]}, _say)
    _tell(results.cases[name]["goals"])


def _tell(goals: list[Case]) -> None:
    for one in goals:
        verdict, sign = "met   " if one["pass"] else "MISSED", ">=" if one["at_least"] else "<="
        _say(f"{verdict} {one['what']}: {one['value']:.3g} (limit {sign} {one['limit']:.3g})")


def _say(line: str) -> None:
    click.echo(line, err=True)


def _run(name: str, seeds: int, measure: Callable[[str], Case]) -> None:
    results = ResultsFile[Case](name)
    results.load()
    keys = [f"{scenario}/{seed}" for seed in range(1, seeds + 1) for scenario in SCENARIOS]
    results.run(keys, measure, _say)


def _over_http(key: str) -> Case:
    scenario, seed = key.split("/")
    command = [sys.executable, "-m", "gateway.cli", "demo", "--scenario", scenario, "--seed", seed, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    return {name: result[name] for name in _KEPT}


def _under_fake_clock(key: str) -> Case:
    from tests.acceptance.driver import run_scenario

    scenario, seed = key.split("/")
    result = run_scenario(scenario, int(seed))
    return {name: result[name] for name in _KEPT if name in result}


if __name__ == "__main__":
    main()
