"""`gateway check` and `gateway schema`: configs before they are served."""

from __future__ import annotations

import json
from pathlib import Path

import click

from gateway.cli.common import json_option, reporting


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def check(file: Path, as_json: bool) -> None:
    """Check a config: every problem with file, line and key. Exit code 78 if it is refused."""
    from gateway.config.load import load, warnings
    from gateway.release.artifacts import Artifacts
    from gateway.release.models import check_models

    with reporting(as_json):
        loaded = load(file)
        check_models(loaded, Artifacts())
    notes = [str(note) for note in warnings(loaded)]
    if as_json:
        click.echo(json.dumps({"ok": True, "digest": loaded.digest, "warnings": notes}))
        return
    for note in notes:
        click.echo(f"warning: {note}", err=True)
    endpoints = ", ".join(loaded.config.endpoints)
    click.echo(f"{file}: ok; endpoints: {endpoints}; digest {loaded.digest[:12]}")


@click.command()
def schema() -> None:
    """Print the JSON Schema of the config, for editors."""
    from gateway.config.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))
