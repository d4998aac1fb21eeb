"""A sign of life for whoever has to wait longer than two seconds; silent on a pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

PATIENCE = 2.0  # seconds


@contextmanager
def progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr; what it gives takes how much more was done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

    console = Console(stderr=True)
    bar = Progress(BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), console=console, transient=True)
    task, begun, shown = bar.add_task("", total=total or None), monotonic(), False

    def done(more: int) -> None:
        nonlocal shown
        if not shown and console.is_terminal and monotonic() - begun > PATIENCE:
            bar.start()
            shown = True
        bar.advance(task, more)

    try:
        yield done
    finally:
        if shown:
            bar.stop()


@contextmanager
def stages() -> Iterator[Callable[[str], None]]:
    """A line on stderr that says what is being done, once that takes long."""
    from rich.console import Console

    console = Console(stderr=True)
    status, begun, shown = console.status(""), monotonic(), False

    def at(what: str) -> None:
        nonlocal shown
        if not shown and console.is_terminal and monotonic() - begun > PATIENCE:
            status.start()
            shown = True
        status.update(what)

    try:
        yield at
    finally:
        if shown:
            status.stop()
