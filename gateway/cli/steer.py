"""`gateway status` and the verbs by which a person steers a release."""

from __future__ import annotations

import getpass
import json
from functools import reduce
from pathlib import Path
from typing import Any

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


def _command(path: Path, endpoint: str, verb: str, reason: str, variant: str = "") -> None:
    """Where nobody can do it, an error names what a node can do by itself."""
    from gateway.cli.client import Admin, AdminAway

    with reporting():
        try:
            after = Admin.of_config(path).command(endpoint, verb, getpass.getuser(), reason, variant)
        except AdminAway as error:
            if verb != "rollback":
                raise
            local = f"gateway rollback --local --config {path} {endpoint}"
            raise AdminAway(f"{error}; `{local}` stops the challengers on this node at once") from error
    click.echo(f"{endpoint}: {_standing(after)}")


def _standing(after: dict[str, Any]) -> str:
    """An endpoint of `admin.views` in a line."""
    hold = after.get("experiment", {}).get("hold")
    split = ", ".join(f"{name} {share:.4g}" for name, share in after["split"].items())
    held = [f"held ({hold})"] if hold else []
    return ", ".join([after["status"], *held, f"champion {after['champion']}", f"split {split}"])


@click.command("forget-node")
@config_option
@click.argument("number", type=click.IntRange(min=1))
@click.option("--reason", default="", help="Why; written to the log.")
@json_option
def forget_node(path: Path, number: int, reason: str, as_json: bool) -> None:
    """Have the nodes of a shared store forget one that died and will not come back. Its facts stay."""
    from gateway.cli.client import Admin

    with reporting(as_json):
        document = Admin.of_config(path).forget_node(number, getpass.getuser(), reason)
    left = ", ".join(str(node["number"]) for node in document["nodes"])
    click.echo(json.dumps(document) if as_json else f"node {number} is forgotten; left: {left}")


def _verb(name: str, text: str, *, of_one: bool = False) -> click.Command:
    """A verb of the admin API; `of_one` where it may be about one of several challengers."""

    def steer(path: Path, endpoint: str, reason: str, variant: str = "") -> None:
        _command(path, endpoint, name, reason, variant)

    takes = [config_option, _endpoint, *([_variant] if of_one else []), _reason]
    return click.command(name, help=text)(reduce(lambda command, option: option(command), reversed(takes), steer))


hold = _verb("hold", "Keep the split as it is until `resume`; harm still rolls back.")
resume = _verb("resume", "End a hold and take up the stage as the config has it; try models again that crashed.")
promote = _verb("promote", "Make a challenger the champion now, whatever the evidence says.", of_one=True)
drop = _verb("drop", "Take one of several challengers out of the running; the others go on.", of_one=True)
complete = _verb("complete", "End the watch after a promotion: the old champion gives up its holdback.")


@click.command()
@config_option
@_endpoint
@_reason
@click.option(
    "--local",
    is_flag=True,
    help="On this node at once, without the control process or the store. When they are back it becomes a rollback on"
    " every node, in the ledger.",
)
def rollback(path: Path, endpoint: str, reason: str, local: bool) -> None:
    """Give all traffic back to the champion of the experiment now."""
    if not local:
        _command(path, endpoint, "rollback", reason)
        return
    from gateway.cli.local import roll_back

    with reporting():
        click.echo(roll_back(path, endpoint, getpass.getuser(), reason))
