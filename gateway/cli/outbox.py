"""`gateway outbox`: what happened, as events, into a warehouse or a broker."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from gateway.cli.common import reporting
from gateway.cli.log import names_text, source_argument, time_text

if TYPE_CHECKING:
    from gateway.export.outbox.sinks import Sink
    from gateway.export.outbox.waiting import Waiter

_PATIENCE = 600.0  # seconds without --follow
_EX_TEMPFAIL = 75  # sysexits.h: nobody took it for now


@click.command()
@source_argument
@click.option(
    "--to", required=True, metavar="URL", help="- for stdout, file:/FOLDER, http(s)://… or nats://HOST/SUBJECT"
)
@click.option("--name", required=True, help="Of the consumer: its position, at one URL, is kept under this name.")
@click.option("--moved", is_flag=True, help="The consumer is at another URL than before: go on where it was.")
@click.option("--follow", is_flag=True, help="Go on with what comes, until SIGTERM.")
@click.option("--what", metavar="KIND,…", callback=names_text, help="Of exposures, outcomes, decisions.  [all]")
@click.option(
    "--since", callback=time_text, metavar="DATE", help="Where to begin the first time; `now` for what comes.  [all]"
)
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    help="The file of the position.  [outbox/NAME.json in the data directory]",
)
@click.option(
    "--batch", type=click.IntRange(1, 10_000), default=500, show_default=True, help="Events at a time, at most."
)
@click.option(
    "--form",
    type=click.Choice(["ndjson", "cloudevents"]),
    default="ndjson",
    show_default=True,
    help="How a batch is POSTed: application/x-ndjson or application/cloudevents-batch+json.",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Holds a token for `Authorization: Bearer`; read anew for each request.",
)
@click.option("--source", "origin", default="/gateway", show_default=True, help="The events' `source`.")
def outbox(
    source: str,
    to: str,
    name: str,
    moved: bool,
    follow: bool,
    what: tuple[str, ...],
    since: int | None,
    state: Path | None,
    batch: int,
    form: str,
    token_file: Path | None,
    origin: str,
) -> None:
    """Send what happened as CloudEvents, each at least once, those of one kind in their order.

    DSN_OR_CONFIG is sqlite:///PATH, postgresql://…, a SQLite file, or the config of a gateway, which may be running
    and never waits for this process. An exposure is sent when it is completed, or when no completion can count any
    more. A consumer drops what has an `id` that it has seen. The position moves when a batch is acknowledged: by 2xx,
    by the disk, by the stream of NATS JetStream, or by the pipe. 5xx, 429 and broken connections are tried again, with
    growing pauses or after their Retry-After; any other answer ends the outbox.

    Exit codes: 0 everything was sent, or SIGTERM came; 1 something was refused or cannot be read; 2 wrong usage;
    75 nobody took it for ten minutes (not with --follow); 78 the config is refused.
    """
    from gateway.clock import SystemClock
    from gateway.export.outbox.events import Teller
    from gateway.export.outbox.feed import KINDS, Feed
    from gateway.export.outbox.position import held
    from gateway.export.outbox.pump import Outbox, run
    from gateway.export.outbox.sinks import SinkUnavailable, shown
    from gateway.export.outbox.waiting import UntilStopped
    from gateway.export.source import named, reading

    for kind in what:
        if kind not in KINDS:
            raise click.BadParameter(f"there are {', '.join(KINDS)}, found {kind!r}", param_hint="--what")
    waiter = UntilStopped()
    with reporting(), waiter.on_signals():
        url, folder = named(source)
        path = state or _state(folder, name)
        with held(path) as keeper, reading(url) as store, _sink(to, name, form, token_file, waiter, follow) as sink:
            feed = Feed(store, Teller(origin), what or KINDS, batch)
            parts = Outbox(feed, sink, keeper, SystemClock(), waiter, _tell, shown(to), moved)
            try:
                sent = run(parts, follow=follow, since=since or 0)
            except SinkUnavailable as error:
                _tell(str(error))
                sys.exit(_EX_TEMPFAIL)
    _tell(f"{sent:,} event{'' if sent == 1 else 's'} sent")


def _state(folder: Path | None, name: str) -> Path:
    if not name.replace("-", "").replace("_", "").isalnum():
        raise click.BadParameter("letters, digits, - and _ only: it is the name of a file", param_hint="--name")
    if folder is None:
        raise click.UsageError("a database has no folder: name a config, or the file of the position with --state")
    return folder / "outbox" / f"{name}.json"


@contextmanager
def _sink(to: str, name: str, form: str, token_file: Path | None, waiter: Waiter, follow: bool) -> Iterator[Sink]:
    with closing(_made(to, name, form, token_file, waiter, follow)) as sink:
        yield sink


def _made(to: str, name: str, form: str, token_file: Path | None, waiter: Waiter, follow: bool) -> Sink:
    from gateway.clock import SystemClock

    parts = urlsplit(to)
    if to == "-":
        from gateway.export.outbox.sinks.pipe import Pipe

        return Pipe(sys.stdout.buffer)
    if parts.scheme == "file" and parts.path:
        from gateway.export.outbox.sinks.folder import Folder

        return Folder(Path(parts.path), name, SystemClock())
    if parts.scheme in ("http", "https") and parts.hostname:
        from gateway.export.outbox.sinks.http import Http
        from gateway.export.outbox.sinks.retrying import Retrying

        retrying = Retrying(SystemClock(), waiter, None if follow else _PATIENCE, _tell)
        return Http(to, "cloudevents" if form == "cloudevents" else "ndjson", retrying, token_file)
    if parts.scheme in ("nats", "tls") and parts.hostname and parts.path.strip("/"):
        from gateway.export.outbox.sinks.nats import Nats
        from gateway.export.outbox.sinks.retrying import Retrying

        return Nats(to, Retrying(SystemClock(), waiter, None if follow else _PATIENCE, _tell), token_file)
    expected = "expected -, file:/FOLDER, http(s)://HOST/… or nats://HOST/SUBJECT"
    raise click.BadParameter(f"{expected}, found {to!r}", param_hint="--to")


def _tell(line: str) -> None:
    click.echo(f"outbox: {line}", err=True)
