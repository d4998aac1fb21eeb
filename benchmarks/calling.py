"""Callers on a thread of their own, for as long as somebody does something to the gateway."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import uvloop

from benchmarks.callers import PATIENCE, Caller
from benchmarks.client_log import Log
from benchmarks.processes import BenchmarkError, wait_until


class Calling:
    """Callers on a thread of their own, until told to stop."""

    def __init__(self, callers: Sequence[Caller], log: Log) -> None:
        self.log = log
        self._callers = callers
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Event | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="callers")

    def __enter__(self) -> Calling:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> Log:
        """Raises what a caller has raised: a mistake of this program, or an answer that cannot be."""
        if self._loop is not None and self._over is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(PATIENCE + 5.0)
        if self._error is not None:
            raise BenchmarkError(f"a caller failed: {self._error!r}") from self._error
        return self.log

    def more(self, answers: int, seconds: float = 60.0) -> None:
        """Wait until so many more requests were answered; raises BenchmarkError if they are not in time."""
        target = len(self.log.answered) + answers

        def there() -> bool:
            if self._error is not None:
                raise BenchmarkError(f"a caller failed: {self._error!r}") from self._error
            return len(self.log.answered) >= target

        wait_until(there, seconds, f"{answers} more answers did not come", 0.01)

    def _run(self) -> None:
        try:
            uvloop.run(self._all())
        except BaseException as error:
            self._error = error

    async def _all(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        over = self._over
        tasks = [asyncio.create_task(caller.run()) for caller in self._callers]
        for task in tasks:
            task.add_done_callback(lambda _: over.set())
        await over.wait()
        failed = [task.exception() for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for error in failed:
            raise error or RuntimeError("a caller has ended")


def calling(ports: Sequence[int], seed: int, callers: int = 12, **more: Any) -> Calling:
    """So many callers, each of whom begins with another of the ports."""
    log = Log()
    turns = [[*ports[n % len(ports) :], *ports[: n % len(ports)]] for n in range(callers)]
    return Calling([Caller(turn, log, seed * 1000 + n, **more) for n, turn in enumerate(turns)], log)
