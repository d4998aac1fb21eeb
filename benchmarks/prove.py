"""The long proofs, resumable: `make prove` runs what is not yet measured for this revision.

demo-http    every scenario over real HTTP, through `gateway demo --json`
demo-clock   the same through the same composition roots under a fake clock, over many more seeds
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import click

from benchmarks.results_file import RESULTS, ROOT, Case, ResultsFile

SCENARIOS = {"better": "promote", "harmful": "rollback", "same": "inconclusive", "crashing": "rollback"}
README = ROOT / "README.md"
START, END = "<!-- prove:start -->\n", "<!-- prove:end -->"
_KEPT = ("decision", "stage", "units", "challenger_units", "harmed_share", "failed_requests", "reason", "seconds")


@click.command()
@click.option("--http-seeds", default=5, show_default=True, help="Seeds of each scenario over real HTTP.")
@click.option("--clock-seeds", default=100, show_default=True, help="Seeds of each scenario under a fake clock.")
@click.option("--only", type=click.Choice(["demo-http", "demo-clock"]), help="One proof instead of all.")
@click.option("--readme", is_flag=True, help="Only write the README's table from the results that are there.")
def main(http_seeds: int, clock_seeds: int, only: str | None, readme: bool) -> None:
    """Run the long proofs and write the README's table from their results."""
    if not readme:
        if only in (None, "demo-clock"):
            _run("demo-clock", clock_seeds, _under_fake_clock)
        if only in (None, "demo-http"):
            _run("demo-http", http_seeds, _over_http)
    text = README.read_text()
    before, rest = text.split(START)
    README.write_text(before + START + table() + END + rest.split(END)[1])


def _run(name: str, seeds: int, measure: Callable[[str], Case]) -> None:
    results = ResultsFile(name)
    results.load()
    keys = [f"{scenario}/{seed}" for seed in range(1, seeds + 1) for scenario in SCENARIOS]
    results.run(keys, measure, lambda line: click.echo(line, err=True))


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


if __name__ == "__main__":
    main()
