"""`gateway status` and the verbs by which a person steers a release."""

from __future__ import annotations

import getpass
import json
from pathlib import Path

import click

from gateway.cli.common import config_option, json_option, reporting

_reason = click.option("--reason", default="", help="Why; written to the ledger.")
_endpoint = click.argument("endpoint")
_variant = click.option("--variant", default="", help="Which challenger, where there are several.")


@click.command()
@config_option
@json_option
def status(path: Path, as_json: bool) -> None:
    """Show what a running gateway serves and where each release stands."""
    from gateway.admin.text import print_status
    from gateway.cli.client import Admin

    with reporting(as_json):
        document = Admin.of_config(path).status()
    if as_json:
        click.echo(json.dumps(document))
    else:
        print_status(document)


@click.command()
@config_option
@_endpoint
@_reason
def hold(path: Path, endpoint: str, reason: str) -> None:
    """Keep the split as it is until `resume`; harm still rolls back."""
    _command(path, endpoint, "hold", reason)


@click.command()
@config_option
@_endpoint
@_reason
def resume(path: Path, endpoint: str, reason: str) -> None:
    """End a hold and take up the stage as the config has it."""
    _command(path, endpoint, "resume", reason)


@click.command()
@config_option
@_endpoint
@_variant
@_reason
def promote(path: Path, endpoint: str, variant: str, reason: str) -> None:
    """Make a challenger the champion now, whatever the evidence says."""
    _command(path, endpoint, "promote", reason, variant)


@click.command()
@config_option
@_endpoint
@_variant
@_reason
def drop(path: Path, endpoint: str, variant: str, reason: str) -> None:
    """Take one of several challengers out of the running; the others go on."""
    _command(path, endpoint, "drop", reason, variant)


@click.command()
@config_option
@_endpoint
@_reason
def complete(path: Path, endpoint: str, reason: str) -> None:
    """End the watch after a promotion: the old champion gives up its holdback."""
    _command(path, endpoint, "complete", reason)


@click.command()
@config_option
@_endpoint
@_reason
def rollback(path: Path, endpoint: str, reason: str) -> None:
    """Give all traffic back to the champion of the experiment now."""
    _command(path, endpoint, "rollback", reason)


def _command(path: Path, endpoint: str, verb: str, reason: str, variant: str = "") -> None:
    from gateway.cli.client import Admin

    with reporting():
        after = Admin.of_config(path).command(endpoint, verb, getpass.getuser(), reason, variant)
    split = ", ".join(f"{name} {share:.4g}" for name, share in after["split"].items())
    click.echo(f"{endpoint}: {after['status']}, champion {after['champion']}, split {split}")
