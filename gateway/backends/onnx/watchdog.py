"""Ends a run on the loop's thread that turns out to be long: meanwhile the loop could not.

It sleeps while nothing is run, and under load looks a few hundred times a second; a timer for each run would cost more
than a small model.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.backends.onnx.batching import Run

LOOK = 0.005  # seconds between two looks: who is seen at two of them, and ran most of the time, is stopped


class Watchdog:
    """Watches the runs of the thread that made it. `watched` and `close` are for that thread."""

    def __init__(self, name: str) -> None:
        # Time on the processor: on a busy machine a short run may be long under way without being run.
        self._clock = time.pthread_getcpuclockid(threading.get_ident())
        self._run: Run | None = None
        self._runs = 0
        self._asleep = True
        self._closed = False
        self._called = threading.Event()
        self.thread = threading.Thread(target=self._work, name=f"watchdog {name}", daemon=True)
        self.thread.start()

    @contextmanager
    def watched(self, run: Run) -> Iterator[None]:
        """A run that begins now and ends with the block."""
        self._runs += 1
        self._run = run
        if self._asleep:
            self._asleep = False
            self._called.set()
        try:
            yield
        finally:
            self._run = None

    def close(self) -> None:
        self._closed = True
        self._called.set()

    def _work(self) -> None:
        while not self._closed:
            self._called.wait()
            self._called.clear()
            seen = -1
            while seen != self._runs or self._run is not None:
                seen = self._runs
                self._look()
                if seen == self._runs:
                    self._asleep = True  # and then once more: a run that begins before this line calls nobody

    def _look(self) -> None:
        run, used = self._run, time.clock_gettime(self._clock)
        while run is not None and run is self._run:
            time.sleep(LOOK)
            if run is self._run and time.clock_gettime(self._clock) - used > LOOK / 2:
                run.stop()
                return
        time.sleep(LOOK)
