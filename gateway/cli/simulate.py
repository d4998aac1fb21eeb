"""`gateway simulate`: many experiments on made-up or on logged traffic, by the code that decides in production."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import click

from gateway.cli.common import json_option, reporting
from gateway.cli.forecasts import (
    asked_sensibly,
    assumptions,
    config_argument,
    endpoint_option,
    level_options,
    loaded_subject,
    named_numbers,
    ramp_text,
    traffic_text,
)

if TYPE_CHECKING:
    from gateway.forecast.subject import Subject

_PATIENCE = 2.0  # seconds without a sign of life
_RUNS, _DEALS = 200, 1000


@click.command()
@config_argument
@click.option(
    "--effect",
    "effects",
    type=float,
    multiple=True,
    help="A true improvement. May be repeated; by default 0 and plus and minus expected_effect.",
)
@click.option("--baseline", type=float, help="The champion's objective: its rate, or its mean.")
@level_options
@click.option(
    "--worse",
    metavar="METRIC=NUMBER",
    callback=named_numbers,
    multiple=True,
    help="By how much challengers are worse in a metric, such as errors=0.01.",
)
@click.option("--drift", type=float, default=0.0, help="How far everybody's objective moves until the longest end.")
@click.option(
    "--traffic",
    metavar="UNITS/TIME",
    callback=traffic_text,
    default="20000/day",
    show_default=True,
    help="Units that come.",
)
@click.option(
    "--ramp", metavar="SHARE,SHARE,...", callback=ramp_text, help="Other shares of the stages, such as 1%,10%,50%."
)
@click.option("--units", type=click.IntRange(1), help="End after so many units, as max_units does.")
@click.option("--look-every", type=click.IntRange(1), help="Units between two looks; by default 100 looks a stage.")
@click.option("--runs", type=click.IntRange(1), help="For each effect.  [200, with --from-log 1000]")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@click.option("--from-log", is_flag=True, help="Deal the champion's units in the config's store anew, at random.")
@click.option("--experiment", help="With --from-log: whose log; by default that of the config's experiment.")
@endpoint_option
@json_option
def simulate(
    file: Path,
    effects: tuple[float, ...],
    baseline: float | None,
    sd: float | None,
    errors_base: float | None,
    latency_base: float | None,
    bases: dict[str, float],
    worse: dict[str, float],
    drift: float,
    traffic: float,
    ramp: tuple[Decimal, ...] | None,
    units: int | None,
    look_every: int | None,
    runs: int | None,
    seed: int,
    jobs: int,
    from_log: bool,
    experiment: str | None,
    endpoint: str | None,
    as_json: bool,
) -> None:
    """Run the experiment of CONFIG many times and count how it ends.

    Evidence, verdict, policy and stages are those of the gateway; only time and traffic are made up. With --from-log
    the traffic is real: nobody is better or worse then, so it shows how often a verdict would have been a false one.
    """
    import msgspec
    from rich.console import Console

    from gateway.forecast.made_up import Scenario
    from gateway.forecast.simulation import Runs, made_up
    from gateway.forecast.simulation import from_log as dealt_anew
    from gateway.forecast.simulation_text import simulation_view

    if experiment and not from_log:
        raise click.UsageError("--experiment names a log: it needs --from-log")
    if from_log and (effects or worse or drift):
        raise click.UsageError("--from-log shows what is found where nothing is: no effect, nobody worse, no drift")
    with reporting(as_json), asked_sensibly():
        subject = _limited(loaded_subject(file, endpoint), ramp, units)
        how = Runs(count=runs or (_DEALS if from_log else _RUNS), seed=seed, jobs=jobs, look_every=look_every)
        if from_log:
            with progress(how.count) as done:
                found = dealt_anew(subject, _store(file), experiment, how, done)
        else:
            expected = subject.definition.expected_effect
            chosen = effects or tuple(dict.fromkeys((0.0, expected, -expected)))
            scenarios = [Scenario(effect, worse, drift) for effect in chosen]
            assumed = assumptions(subject, baseline, sd, errors_base, latency_base, bases)
            with progress(how.count * len(scenarios)) as done:
                found = made_up(subject, assumed, traffic, scenarios, how, done)
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        Console().print(simulation_view(found), highlight=False)


def _limited(subject: Subject, ramp: tuple[Decimal, ...] | None, units: int | None) -> Subject:
    from msgspec.structs import replace

    if ramp is not None:
        subject = subject.with_ramp(ramp)
    if units is None:
        return subject
    most = min(units, subject.rules.max_units or units)
    return subject._replace(rules=replace(subject.rules, max_units=most))


def _store(file: Path) -> str:
    from gateway.config.load import load

    return load(file, serving=False).config.store


@contextmanager
def progress(total: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr for whoever has to wait longer than two seconds; silent on a pipe."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    begun = monotonic()
    bar = Progress(
        BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True
    )
    task = bar.add_task("runs", total=total)
    shown = False

    def done() -> None:
        nonlocal shown
        if not shown and bar.console.is_terminal and monotonic() - begun > _PATIENCE:
            bar.start()
            shown = True
        bar.advance(task)

    try:
        yield done
    finally:
        if shown:
            bar.stop()
