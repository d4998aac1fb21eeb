"""What the verbs share: options, exit codes, and the seam where errors become messages."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.errors import ConfigError, GatewayError

if TYPE_CHECKING:
    from gateway.config.schema import Config

EX_CONFIG = 78  # sysexits.h: something is wrong with the configuration

config_option = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    envvar="GATEWAY_CONFIG",
    required=True,
    help="The config file (or $GATEWAY_CONFIG).",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def worker_count(config: Config) -> int:
    """How many processes serve: as the config says, or one for each CPU that this process may use."""
    number = config.data.workers
    return len(os.sched_getaffinity(0)) if number == "auto" else number


@contextmanager
def reporting(as_json: bool = False) -> Iterator[None]:
    """End with a message and an exit code instead of a traceback: 78 for a refused config, 1 otherwise."""
    try:
        yield
    except ConfigError as error:
        if as_json:
            click.echo(json.dumps({"ok": False, "problems": [str(problem) for problem in error.problems]}))
        else:
            click.echo(str(error), err=True)
        sys.exit(EX_CONFIG)
    except GatewayError as error:
        click.echo(f"gateway: {error}", err=True)
        sys.exit(1)
