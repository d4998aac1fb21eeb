"""Where events go. A sink returns from `send` when it has acknowledged a batch, and raises otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from gateway.errors import GatewayError
from gateway.export.outbox.events import Event


class SinkError(GatewayError):
    """What was sent was refused, or cannot be written: to try again would change nothing."""

    reason = "sink"


class SinkUnavailable(SinkError):
    """Nobody took it for now."""


class Stopped(Exception):
    """Somebody wants this to end before the sink has acknowledged."""


class Sink(Protocol):
    """Raises SinkError, or Stopped where it is told to end while it waits."""

    def send(self, events: tuple[Event, ...]) -> None:
        """Returns when every event is kept where it goes."""

    def idle(self) -> None:
        """Called while there is nothing to send."""

    def close(self) -> None: ...


def shown(to: str) -> str:
    """Where events go, without what may be a secret: for messages, and to know the place again."""
    parts = urlsplit(to)
    if parts.scheme == "file":
        return f"file:{Path(parts.path).absolute()}"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
