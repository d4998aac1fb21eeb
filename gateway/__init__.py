"""An A/B-testing gateway for served models."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.export.notebook import Log

__version__ = "0.1.0"


def connect(dsn: str) -> Log:
    """The log of a store as pandas frames, for notebooks; a context manager. Needs the extra [notebook].

    `dsn`: sqlite:///PATH, postgresql://…, a SQLite file, or the config of a gateway, which may be running.
    """
    from importlib import import_module  # by name: workers import this package, and must not import what this needs

    log: type[Log] = import_module("gateway.export.notebook").Log
    return log(dsn)
