"""The command line. Exit codes: 0 done, 1 failed, 2 wrong usage, 78 the config is refused."""

from gateway.cli.main import main

__all__ = ["main"]
