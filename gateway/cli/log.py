"""What `export`, `outbox` and `migrate` share: which store, which times, and signs of life."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from time import monotonic, time_ns

import click

_PATIENCE = 2.0  # seconds without a sign of life

source_argument = click.argument("source", metavar="DSN_OR_CONFIG")


def time_text(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Microseconds since the epoch, from a date or a time in ISO 8601; in UTC unless it says otherwise."""
    if value is None:
        return None
    if value == "now":
        return time_ns() // 1000
    try:
        at = datetime.fromisoformat(value)
    except ValueError as error:
        message = f"expected a date or a time such as 2026-07-01 or 2026-07-01T12:00:00Z, found {value!r}"
        raise click.BadParameter(message, ctx, param) from error
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return int(at.timestamp()) * 1_000_000 + at.microsecond


def names_text(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Names with commas between them."""
    return tuple(name.strip() for name in value.split(",") if name.strip()) if value else ()


@contextmanager
def progress(unit: str = "rows") -> Iterator[Callable[[str, int], None]]:
    """Where it is, on stderr, for whoever has to wait longer than two seconds; silent on a pipe."""
    from rich.console import Console

    console = Console(stderr=True)
    begun = monotonic()
    status = console.status("")
    shown = False

    def tell(what: str, number: int) -> None:
        nonlocal shown
        if not shown and console.is_terminal and monotonic() - begun > _PATIENCE:
            status.start()
            shown = True
        if shown:
            status.update(f"{what}: {number:,} {unit}")

    try:
        yield tell
    finally:
        if shown:
            status.stop()


@contextmanager
def cleaning_up() -> Iterator[None]:
    """SIGTERM unwinds as any other end does, so that nothing half-made is left."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
