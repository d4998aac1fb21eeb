"""The traps of the specification at full length, for `prove`: a case is one trap, or one cell of it.

`python -m benchmarks.traps T7` runs those whose name begins so, and prints one line for each measurement.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from tests.statistical.traps import SEED, TRAPS


def run(name: str, runs: int = 0) -> dict[str, Any]:
    """One case: what was measured, whether all of it is within its limits, and how long it took."""
    trap = TRAPS[name]
    began = time.perf_counter()
    measured = trap.run(runs or trap.full, SEED + 1)
    return {
        "trap": name,
        "known": trap.known,
        "pass": all(one.passed for one in measured),
        "seconds": round(time.perf_counter() - began, 1),
        "measured": [one.record() for one in measured],
    }


CASES: dict[str, Callable[[], dict[str, Any]]] = {name: partial(run, name) for name in TRAPS}


@click.command()
@click.argument("prefix", default="T")
@click.option("--runs", default=0, help="Instead of each trap's own number.")
def main(prefix: str, runs: int) -> None:
    """Run traps and print what was measured."""
    for name in TRAPS:
        if not name.startswith(prefix):
            continue
        case = run(name, runs)
        click.echo(f"{name} ({case['seconds']} s)")
        for one in case["measured"]:
            sign = ">=" if one["at_least"] else "<="
            verdict = "" if one["pass"] else "FAILED "
            click.echo(f"  {verdict}{one['what']}: {one['value']:.4g} {sign} {one['limit']:.4g} ({one['runs']} runs)")


if __name__ == "__main__":
    main()
