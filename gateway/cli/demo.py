"""`gateway demo`: a whole release in a minute, on real flights, in the terminal or as JSON lines."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import click

from gateway.cli.common import json_option, reporting

if TYPE_CHECKING:
    from gateway.demo.story import Event

NAMES = ("better", "harmful", "same", "crashing")


@click.command()
@click.option("--scenario", type=click.Choice(NAMES), default="better", show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="Order of the flights and draw of the split.")
@json_option
def demo(scenario: str, seed: int, as_json: bool) -> None:
    """Replay real flights through a real gateway and watch it decide."""
    from gateway.demo.progress import Screen
    from gateway.demo.runner import tell

    async def run() -> None:
        screen = None if as_json else Screen()
        try:
            async for event in tell(scenario, seed):
                if screen is None:
                    _print(event)
                else:
                    screen.show(event)
        finally:
            if screen is not None:
                screen.close()

    with reporting():
        asyncio.run(run())


def _print(event: Event) -> None:
    click.echo(json.dumps(event))
