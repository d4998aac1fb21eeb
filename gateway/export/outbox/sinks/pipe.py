"""Events as lines of JSON on stdout, for whatever reads a pipe."""

from __future__ import annotations

from typing import BinaryIO

from gateway.export.outbox.events import Event
from gateway.export.outbox.sinks import SinkError


class Pipe:
    """A batch counts as taken when the pipe has it: what its reader had not read when it died is not sent again."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def send(self, events: tuple[Event, ...]) -> None:
        try:
            self._out.write(b"".join(event.text + b"\n" for event in events))
            self._out.flush()
        except OSError as error:
            raise SinkError(f"stdout: {error.strerror}") from error

    def idle(self) -> None:
        """Nothing is kept back."""

    def close(self) -> None:
        """It is not ours."""
