"""`gateway keys`: secrets for an installation of several nodes."""

from __future__ import annotations

import json
from pathlib import Path

import click

from gateway.cli.common import json_option, reporting


@click.command()
@click.option(
    "--of",
    "data_dir",
    type=click.Path(path_type=Path),
    help="Print those that a node has made for itself in this data directory, so that others can share them.",
)
@json_option
def keys(data_dir: Path | None, as_json: bool) -> None:
    """Make new secrets for `keys` in a config, as variables of the environment. They are printed and kept nowhere."""
    from gateway.release.keys import load, made

    with reporting(as_json):
        secrets = made() if data_dir is None else load(data_dir / "keys.json")
    variables = {"GATEWAY_SIGNING_KEY": secrets.signing[0].secret, "GATEWAY_PEPPER": secrets.pepper}
    if as_json:
        click.echo(json.dumps(variables))
        return
    for name, value in variables.items():
        click.echo(f"{name}={value}")
