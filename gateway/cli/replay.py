"""`gateway replay`: does what was decided follow from what happened?"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.common import json_option, reporting
from gateway.errors import ConfigError, GatewayError, StoreError

if TYPE_CHECKING:
    from gateway.audit.replay import Replayed
    from gateway.store.keeping import Keeping

DIFFERS, UNREADABLE = 1, 2  # exit codes
_SHOWN = 5  # findings of one experiment

store_argument = click.argument("store", metavar="STORE")


@contextmanager
def looking(store: str, as_json: bool) -> Iterator[Keeping]:
    """A store at one moment, by its URL, its file, or a config; ends with exit code 2 if it cannot be read.

    While somebody looks, SQLite cannot cut its log back, which grows by what happens meanwhile.
    """
    from gateway.export.source import reading, url_of

    with reporting(as_json):
        try:
            if Path(store).is_dir():
                raise StoreError(
                    f"{store}: a folder. Spools alone cannot be replayed: what the coins were worth follows from the"
                    " plans, and which facts were in time from the fold steps, and both are in the store"
                )
            with reading(url_of(store)) as opened, opened.transaction():
                yield opened
        except ConfigError:
            raise
        except GatewayError as error:
            click.echo(f"gateway: {error}", err=True)
            sys.exit(UNREADABLE)


@click.command()
@store_argument
@click.option("--experiment", help="Only this one.")
@json_option
def replay(store: str, experiment: str | None, as_json: bool) -> None:
    """Make votes, evidence, reports and decisions once more, and compare them with those that STORE has.

    STORE is sqlite:///PATH, the path of a SQLite file, postgresql://…, or a config file; it is only read, also while
    the gateway runs. Exit codes: 0 everything is the same, 1 something differs, 2 it cannot be read, 78 the config is
    refused.
    """
    import msgspec

    from gateway.audit.replay import amount
    from gateway.audit.replay import replay as replayed
    from gateway.cli.progress import progress

    found: list[Replayed] = []
    with looking(store, as_json) as opened:
        if experiment is not None and experiment not in (known := opened.experiments()):
            raise StoreError(f"the store knows no experiment {experiment}; it knows {', '.join(known) or 'none'}")
        with progress(amount(opened, experiment)) as done:
            for one in replayed(opened, experiment, done):
                found.append(one)
                if not as_json:
                    click.echo("\n".join(_lines(one)))
    same = all(one.same for one in found)
    if as_json:
        click.echo(json.dumps({"same": same, "experiments": msgspec.to_builtins(found)}))
    elif not found:
        click.echo("the store knows no experiment")
    if not same:
        sys.exit(DIFFERS)


def _lines(one: Replayed) -> Iterator[str]:
    amounts = f"{one.votes} votes, {one.reports} reports, {one.decisions} decisions of the gateway"
    yield f"{one.experiment}: {'the same' if one.same else 'differs'}: {amounts}"
    for finding in one.findings[:_SHOWN]:
        yield f"  {finding}"
    if len(one.findings) > _SHOWN:
        yield f"  and {len(one.findings) - _SHOWN} more that may follow from these"
    if one.readmitted_from > 1:
        yield f"  requests of the first steps have expired: votes were made again from step {one.readmitted_from} on"
    elif one.votes and not one.readmitted_from:
        yield "  all requests have expired: votes were not made again"
    if one.unsure:
        yield f"  {one.unsure} votes were not made again: nobody wrote down in time by which plan they were drawn"
    if one.unexplained:
        yield f"  {one.unexplained} reports were not made again: an earlier version wrote down too little"
