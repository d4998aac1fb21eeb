"""Goals G1-G14 and G16 of the statistics, measured on the real classes of `gateway.stats`.

`python -m benchmarks.bench_statistics --runs 400` takes two minutes on one core: the quick look. Error rates deserve
10,000 runs, which are `make prove ARGS="--only statistics"` (`stats_plan`).
Every goal draws from its own seeded generator: it gives the same numbers alone and among others (timings apart).
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.results_file import machine, revision
from benchmarks.stats_plan import GOALS


@click.command()
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the results here as well.")
@click.option("--runs", default=400, show_default=True, type=click.IntRange(min=20), help="Simulated experiments.")
@click.option("--goals", default=",".join(GOALS), show_default=True, help="Which goals, separated by commas.")
@click.option("--seed", default=1, show_default=True, help="Seed of all generators.")
def main(path: Path | None, runs: int, goals: str, seed: int) -> None:
    """Measure the goals of the statistics and compare each with its limit."""
    wanted = [name.strip().upper() for name in goals.split(",") if name.strip()]
    if unknown := sorted(set(wanted) - set(GOALS)):
        raise click.BadParameter(f"unknown goals: {', '.join(unknown)}", param_hint="--goals")
    records: list[dict[str, Any]] = []
    document = {"proof": "statistics", "revision": revision(), "machine": machine(), "seed": seed, "goals": records}
    failed = 0
    for name in wanted:
        begin = time.perf_counter()
        measured = GOALS[name](runs, np.random.default_rng([seed, int(name[1:])]))
        seconds = time.perf_counter() - begin
        for one in measured:
            failed += not one.passed
            sign = ">=" if one.at_least else "<="
            verdict = "ok  " if one.passed else "FAIL"
            click.echo(
                f"{verdict} {name:4} {one.what}: {one.value:.4g} (limit {sign} {one.limit:.4g}, {one.runs} runs)"
            )
        click.echo(f"     {name:4} took {seconds:.1f} s", err=True)
        records += [{**one.record(), "seed": seed, "seconds": round(seconds, 1)} for one in measured]
        if path is not None:
            path.write_text(json.dumps(document, indent=1) + "\n")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
