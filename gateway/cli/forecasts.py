"""What `plan` and `simulate` share: how a person says traffic, levels and effects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from gateway.forecast.assumptions import Assumption
    from gateway.forecast.subject import Subject

F = TypeVar("F", bound=Callable[..., Any])


def traffic_text(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """Units a day, from 20000/day, 800/hour or 2.5/s."""
    from gateway.forecast.traffic import per_day

    try:
        return per_day(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error


def named_numbers(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
    """Numbers by metric, each from METRIC=NUMBER."""
    found = {}
    for value in values:
        metric, _, number = value.partition("=")
        try:
            found[metric] = float(number)
        except ValueError as error:
            message = f"expected a metric and a number such as errors=0.002, found {value!r}"
            raise click.BadParameter(message, ctx, param) from error
    return found


def ramp_text(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[Decimal, ...] | None:
    """Shares such as 1%,10%,50%."""
    from gateway.config.scalars import parse_part

    try:
        return None if value is None else tuple(parse_part(share.strip()) for share in value.split(","))
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error


config_argument = click.argument("file", metavar="CONFIG", type=click.Path(path_type=Path))
endpoint_option = click.option("--endpoint", help="Whose experiment; needed where several endpoints have one.")


def level_options(verb: F) -> F:
    """What is known of the champion."""
    options = [
        click.option("--sd", type=float, help="Its standard deviation; not for rates. Guessed if not said."),
        click.option("--errors-base", type=float, help="Share of requests in which the champion fails.  [0.001]"),
        click.option("--latency-base", type=float, help="Share of its answers beyond the limit.  [0.01]"),
        click.option(
            "--base",
            "bases",
            metavar="METRIC=NUMBER",
            callback=named_numbers,
            multiple=True,
            help="The champion's level in another metric, such as orders=0.4. May be repeated.",
        ),
    ]
    for option in reversed(options):
        verb = option(verb)
    return verb


@contextmanager
def asked_sensibly() -> Iterator[None]:
    """What makes no sense for this experiment is wrong usage."""
    from gateway.forecast.subject import AssumptionError

    try:
        yield
    except AssumptionError as error:
        raise click.UsageError(str(error)) from error


def loaded_subject(file: Path, endpoint: str | None) -> Subject:
    from gateway.config.load import load
    from gateway.forecast.subject import subject

    return subject(load(file, serving=False).config, endpoint)


def assumptions(
    subject: Subject,
    baseline: float | None,
    sd: float | None,
    errors_base: float | None,
    latency_base: float | None,
    bases: dict[str, float],
) -> dict[str, Assumption]:
    """Levels by metric; --errors-base and --latency-base are for the gateway's own ones, whatever they are called."""
    from gateway.forecast.assumptions import assume

    known = dict(bases)
    for metric in subject.judged:
        said = latency_base if metric.type == "latency" else errors_base
        if metric.source == "gateway" and said is not None and not metric.by_quantiles:
            known.setdefault(metric.name, said)
    return assume(subject, baseline, sd, known)
