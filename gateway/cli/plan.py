"""`gateway plan`: how long an experiment will take, and how often it may be wrong, before it starts."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.cli.common import json_option, reporting
from gateway.cli.forecasts import (
    asked_sensibly,
    assumptions,
    config_argument,
    endpoint_option,
    level_options,
    loaded_subject,
    traffic_text,
)


@click.command()
@config_argument
@click.option(
    "--traffic",
    metavar="UNITS/TIME",
    callback=traffic_text,
    required=True,
    help="Units that come, such as 20000/day, 800/hour or 2.5/s.",
)
@click.option("--baseline", type=float, required=True, help="The champion's objective: its rate, or its mean.")
@level_options
@click.option("--effect", type=float, help="The true improvement; by default the config's expected_effect.")
@endpoint_option
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Write the curve as an SVG file.")
@json_option
def plan(
    file: Path,
    traffic: float,
    baseline: float,
    sd: float | None,
    errors_base: float | None,
    latency_base: float | None,
    bases: dict[str, float],
    effect: float | None,
    endpoint: str | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """How long the experiment of CONFIG will take, and how often it may be wrong.

    Nothing is started, and no model file is read. Effects are improvements, in the unit of the config.
    """
    import msgspec
    from rich.console import Console

    from gateway.forecast.chart import svg
    from gateway.forecast.plan_text import plan_view
    from gateway.forecast.prospect import prospect

    with reporting(as_json), asked_sensibly():
        subject = loaded_subject(file, endpoint)
        assumed = assumptions(subject, baseline, sd, errors_base, latency_base, bases)
        wanted = subject.definition.expected_effect if effect is None else effect
        if not wanted:
            raise click.UsageError("the config expects no effect in particular: name one with --effect")
        found = prospect(subject, assumed, traffic, wanted)
    if plot is not None:
        try:
            plot.write_text(svg(found))
        except OSError as error:
            raise click.FileError(str(plot), error.strerror) from error
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    Console().print(plan_view(found), highlight=False)
    if plot is not None:
        click.echo(f"plot: {plot}", err=True)
