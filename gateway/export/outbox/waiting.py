"""Waiting that ends when somebody wants the process to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Waiter(Protocol):
    def wait(self, seconds: float) -> bool:
        """True at once when this should end, else False after that time."""


class UntilStopped:
    """Waits for SIGTERM or SIGINT."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def wait(self, seconds: float) -> bool:
        return self._event.wait(seconds)

    def stop(self) -> None:
        self._event.set()

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Both signals only say so, once: a second one ends the process as ever."""
        before = {number: signal.signal(number, self._heard) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _heard(self, number: int, frame: object) -> None:
        self.stop()
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
