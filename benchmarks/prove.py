"""The long proofs, resumable: `make prove` runs what is not yet measured for this revision.

demo-http    every scenario over real HTTP, through `gateway demo --json`
demo-clock   the same through the same composition roots under a fake clock, over many more seeds
statistics   the goals of `gateway.stats` by simulation (`stats_plan`), kept as long as its code stays the same
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmarks import stats_plan
from benchmarks.results_file import RESULTS, ROOT, Case, ResultsFile

SCENARIOS = {"better": "promote", "harmful": "rollback", "same": "inconclusive", "crashing": "rollback"}
PROOFS = ("statistics", "demo-clock", "demo-http")
README = ROOT / "README.md"
STATISTICS_CODE = ("gateway/stats/*.py", "benchmarks/stats_*.py")
_KEPT = ("decision", "stage", "units", "challenger_units", "harmed_share", "failed_requests", "reason", "seconds")
_TIMED = ("G13",)
"""Goals that measure time: they run alone, after the others."""


@click.command()
@click.option("--http-seeds", default=5, show_default=True, help="Seeds of each scenario over real HTTP.")
@click.option("--clock-seeds", default=100, show_default=True, help="Seeds of each scenario under a fake clock.")
@click.option("--only", type=click.Choice(PROOFS), help="One proof instead of all.")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(min=1), help="Processes for the statistics.")
@click.option("--skip", multiple=True, type=click.Choice(list(stats_plan.GOALS)), help="Leave out a goal; repeatable.")
@click.option("--readme", is_flag=True, help="Only write the README's tables from the results that are there.")
def main(http_seeds: int, clock_seeds: int, only: str | None, jobs: int, skip: tuple[str, ...], readme: bool) -> None:
    """Run the long proofs and write the README's tables from their results."""
    if not readme:
        if only in (None, "statistics"):
            prove_statistics(jobs, skip)
        if only in (None, "demo-clock"):
            _run("demo-clock", clock_seeds, _under_fake_clock)
        if only in (None, "demo-http"):
            _run("demo-http", http_seeds, _over_http)
    text = README.read_text()
    for mark, made in (("prove", table()), ("statistics", statistics_table())):
        text = between(text, mark, made)
    README.write_text(text)


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


def table() -> str:
    """The endings by scenario, from the result files."""
    lines = [
        "| scenario | expected | under a fake clock | over real HTTP | flights to the decision: median, 95 % "
        "| met the challenger: median | failed requests |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    clock, http = _by_scenario("demo-clock"), _by_scenario("demo-http")
    for scenario, expected in SCENARIOS.items():
        cases = clock[scenario] + http[scenario]
        if not cases:
            continue
        units = sorted(case["units"] for case in cases)
        harmed = statistics.median(case["harmed_share"] for case in cases)
        lines.append(
            f"| `{scenario}` | {expected} | {_share(clock[scenario], expected)} | {_share(http[scenario], expected)} "
            f"| {statistics.median(units):,.0f}, {units[int(0.95 * (len(units) - 1))]:,} | {harmed:.2%} "
            f"| {sum(case['failed_requests'] for case in cases)} |"
        )
    sources = ", ".join(
        f"`{path.relative_to(ROOT)}` at {json.loads(path.read_text())['revision']}"
        for path in sorted(RESULTS.glob("demo-*.json"))
    )
    return "\n".join([*lines, "", f"From {sources}.", ""]) if sources else ""


def _by_scenario(name: str) -> dict[str, list[Case]]:
    path: Path = RESULTS / f"{name}.json"
    grouped: dict[str, list[Case]] = defaultdict(list)
    if path.exists():
        for key, case in json.loads(path.read_text())["cases"].items():
            grouped[key.split("/")[0]].append(case)
    return grouped


def _share(cases: list[Case], expected: str) -> str:
    counts = Counter(case["decision"] for case in cases)
    return f"{counts[expected]} of {len(cases)}" if cases else "–"  # noqa: RUF001


def statistics_table() -> str:
    """The goals of the statistics against their limits, and other tests on the same streams, from the result file."""
    path = RESULTS / "statistics.json"
    if not path.exists():
        return "Not measured yet: `make prove` does it.\n"
    stored = json.loads(path.read_text())
    cases: dict[str, list[dict[str, Any]]] = stored["cases"]
    lines = ["| goal | measured | value | limit | runs |", "|---|---|--:|--:|--:|"]
    for record in stats_plan.summary(cases):
        value = _number(record["value"]) if record["pass"] else f"**{_number(record['value'])}, missed**"
        sign = "≥" if record["at_least"] else "≤"
        limit = f"{sign} {_number(record['limit'])}"
        lines.append(f"| {record['goal']} | {record['what']} | {value} | {limit} | {record['runs']:,} |")
    seconds = sum(records[0]["seconds"] for records in cases.values())
    missing = [key for key in stats_plan.CASES if key not in cases]
    parts = ["\n".join(lines)]
    if missing:
        parts.append(f"Not measured yet: {', '.join(f'`{key}`' for key in missing)}.")
    parts += _rivals(cases)
    machine = stored["machine"]
    parts.append(
        f"From `{path.relative_to(ROOT)}` at {stored['revision']}: {seconds / 60:.0f} minutes of one core, "
        f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}."
    )
    return "\n\n".join(parts) + "\n"


def _rivals(cases: dict[str, list[dict[str, Any]]]) -> list[str]:
    """This test beside others on the same streams (G4)."""
    if not {"G4/effect", "G4/equal"} <= set(cases):
        return []
    units, false = cases["G4/effect"][0]["detail"]["mean units"], cases["G4/equal"][0]["detail"]
    lines = [
        f"| test | units needed | {' | '.join(f'promoted although equal: {name}' for name in false)} |",
        "|---|--:|" + "--:|" * len(false),
    ]
    for name, needed in units.items():
        label = "**the gateway's**" if name == stats_plan.OURS else name
        rates = " | ".join(_number(rates[name]) for rates in false.values())
        lines.append(f"| {label} | {needed:,.0f} | {rates} |")
    return ["Other tests on the same streams, alpha .05, looking after every unit (G4):", "\n".join(lines)]


def _number(value: float) -> str:
    """Three digits, four below .1 (limits of error rates differ in the fourth), whole from 1,000 on."""
    if value and abs(value) < 1e-4:
        return f"{value:.1e}"
    if abs(value) >= 1000.0:
        return f"{value:,.0f}"
    text = f"{value:.4f}" if abs(value) < 0.1 else f"{value:.3g}"
    return text.rstrip("0").rstrip(".") if "." in text else text


if __name__ == "__main__":
    main()
