"""`gateway export`: the log as CSV or Parquet files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.common import json_option, reporting
from gateway.cli.log import cleaning_up, names_text, progress, source_argument, time_text

if TYPE_CHECKING:
    from gateway.export.manifest import Manifest
    from gateway.export.moment import Moment

_FOREVER = (1 << 63) - 1


@click.command()
@source_argument
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path),
    required=True,
    help="A folder that is not there yet, or is empty.",
)
@click.option("--format", "kind", type=click.Choice(["csv", "parquet"]), default="csv", show_default=True)
@click.option("--what", metavar="TABLE,TABLE,…", callback=names_text, help="Some tables only; see below.  [all]")
@click.option("--experiment", help="Of one experiment only.")
@click.option("--since", metavar="DATE", callback=time_text, help="Units that were assigned from then on (UTC).")
@click.option("--until", metavar="DATE", callback=time_text, help="Units that were assigned before (UTC).")
@json_option
def export(
    source: str,
    folder: Path,
    kind: str,
    what: tuple[str, ...],
    experiment: str | None,
    since: int | None,
    until: int | None,
    as_json: bool,
) -> None:
    """Write the log of a store as files, with a manifest.json that says what they are.

    DSN_OR_CONFIG is sqlite:///PATH, postgresql://…, a SQLite file, or the config of a gateway, which may be running.

    Tables: exposures, outcomes, shadows and votes, with a file for each day (UTC) of the assignment; decisions,
    results, tests, experiments, plans, steps, counters, lags and late. Everything is of one moment: facts up to the
    watermark of the last fold step. Times are ISO 8601 in UTC; unit ids are there as keyed hashes only.

    Exit codes: 0 the folder is there and whole; 1 it is not there, and the message says why; 2 wrong usage; 78 the
    config is refused.
    """
    from gateway.clock import SystemClock
    from gateway.export.dump import Wanted, chosen
    from gateway.export.dump import export as write
    from gateway.export.facts import Selection
    from gateway.export.moment import moment
    from gateway.export.source import named, reading

    try:
        tables = chosen(what)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--what") from error
    selected = Selection(experiment, since or 0, _FOREVER if until is None else until)
    with reporting(as_json), cleaning_up(), reading(named(source).url) as store, progress() as tell:
        now = moment(store, evidence_of=None if experiment is None else [experiment])
        _known(now, experiment)
        wanted = Wanted(tables, kind, selected)
        manifest = write(store, now, wanted, folder, SystemClock(), tell)
    click.echo(json.dumps(manifest.content) if as_json else _text(folder, manifest))


def _known(now: Moment, experiment: str | None) -> None:
    from gateway.errors import StoreError

    if experiment is not None and experiment not in now.experiments:
        known = ", ".join(now.experiments) or "none"
        raise StoreError(f"the store knows no experiment {experiment}; it knows {known}")


def _text(folder: Path, manifest: Manifest) -> str:
    files = sum(len(table["files"]) for table in manifest.content["tables"].values())
    rows = ", ".join(f"{number:,} {name}" for name, number in manifest.rows.items() if number)
    return f"{folder}: {rows or 'no rows'}; {files} files, up to {manifest.content['watermark']}"
