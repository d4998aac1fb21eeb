"""`gateway erase`: a unit is forgotten."""

from __future__ import annotations

import getpass
import json
import sys
from pathlib import Path

import click

from gateway.cli.common import config_option, json_option, reporting


@click.command()
@config_option
@click.option("--unit", required=True, help="The unit, as requests give it; - reads it from standard input.")
@click.option("--endpoint", default="", help="Only at this endpoint; by default everywhere.")
@click.option("--reason", default="", help="Why; written to the ledger, so name nobody.")
@json_option
def erase(path: Path, unit: str, endpoint: str, reason: str, as_json: bool) -> None:
    """Have a running gateway forget a unit: its requests and outcomes are deleted, its votes say no longer whose they
    are. Evidence and decisions stay as they are. Prints when the last file that may hold something of it is gone: a
    node that is away keeps its own files for as long after its return, and what it brings of the unit is refused.
    """
    from gateway.cli.client import Admin

    if unit == "-":
        unit = sys.stdin.readline().rstrip("\r\n")
    if not unit:
        raise click.UsageError("--unit must not be empty")
    with reporting():
        answer = Admin.of_config(path).erase(unit, endpoint, getpass.getuser(), reason)
    click.echo(json.dumps(answer) if as_json else answer["text"])
