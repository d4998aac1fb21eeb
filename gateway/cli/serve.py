"""`gateway serve`: check the config, then hand over to the supervisor."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from gateway.cli.common import config_option, reporting, worker_count


@click.command()
@config_option
@click.option(
    "--shutdown-delay",
    default=5.0,
    show_default=True,
    help="Seconds to go on accepting after `not ready`, so that balancers look elsewhere.",
)
def serve(path: Path, shutdown_delay: float) -> None:
    """Serve from a config until told to stop (SIGTERM or Ctrl+C).

    A second signal cuts the requests in flight off; the exit code is 128 and its number then, 0 otherwise.
    """
    from gateway.config.load import load
    from gateway.supervisor import NodeSettings, Supervisor
    from gateway.telemetry.logging import configure

    configure("supervisor")
    with reporting():
        config = load(path).config
        supervisor = Supervisor(
            NodeSettings(
                config=path.absolute(),
                data_dir=config.data_dir,
                data=config.data.listen,
                admin=config.admin.listen,
                metrics=config.metrics.listen,
                workers=worker_count(config),
                max_memory=config.data.max_memory,
                granted_numbers=config.store_elsewhere,
                shutdown_delay=shutdown_delay,
            )
        )
        supervisor.start()
        sys.exit(supervisor.run())
