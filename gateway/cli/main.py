"""The verbs of `gateway`. Each imports what it needs when it runs, so that `--help` stays quick."""

from __future__ import annotations

import click

from gateway import __version__
from gateway.cli.check import check, schema
from gateway.cli.demo import demo
from gateway.cli.erase import erase
from gateway.cli.export import export
from gateway.cli.keys import keys
from gateway.cli.migrate import migrate
from gateway.cli.outbox import outbox
from gateway.cli.plan import plan
from gateway.cli.replay import replay
from gateway.cli.serve import serve
from gateway.cli.simulate import simulate
from gateway.cli.steer import complete, drop, forget_node, hold, promote, resume, rollback, status
from gateway.cli.verify import verify


@click.group()
@click.version_option(__version__, prog_name="gateway")
def main() -> None:
    """Split traffic between models, measure outcomes, decide, and promote or roll back."""


for command in (serve, check, schema, plan, simulate, status, demo, hold, resume, drop, promote, complete, rollback):
    main.add_command(command)
main.add_command(keys)
main.add_command(export)
main.add_command(outbox)
main.add_command(migrate)
main.add_command(replay)
main.add_command(verify)
main.add_command(erase)
main.add_command(forget_node)
