"""`gateway migrate`: a whole store into another engine."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from gateway.cli.common import json_option, reporting
from gateway.cli.log import cleaning_up, progress

if TYPE_CHECKING:
    from gateway.export.migration.migrate import Migrated
    from gateway.export.source import Named

_EX_DATAERR = 65  # sysexits.h: the copy is not the original


@click.command()
@click.option("--from", "source", required=True, metavar="DSN_OR_CONFIG", help="The store to copy.")
@click.option("--to", "target", required=True, metavar="DSN", help="Where to: sqlite:///PATH or postgresql://…")
@json_option
def migrate(source: str, target: str, as_json: bool) -> None:
    """Copy a store into another one, of the same engine or of the other, and compare every row.

    No gateway may serve from either meanwhile; the target must be empty, or what an earlier run has left. Whatever
    interrupts it, the same command goes on where it was. Until everything was compared the target is no store: a
    SQLite file has the name PATH.migrating, and a database in PostgreSQL lets no gateway in.

    It prints what is to be done next: `store:` in the config, the data directory that stays, and the keys that the
    nodes of a shared store need.

    Exit codes: 0 copied and the same; 1 refused, as where the target is a whole store already, or failed: run it again;
    2 wrong usage; 65 the copy differs; 78 the config is refused.
    """
    from gateway.export.migration.migrate import NotTheSame
    from gateway.export.migration.migrate import migrate as copy
    from gateway.export.source import named

    with reporting(as_json), cleaning_up(), progress() as tell:
        try:
            origin = named(source)
            done = copy(origin, target, tell)
        except NotTheSame as error:
            click.echo(f"gateway: the copy differs: {error}", err=True)
            sys.exit(_EX_DATAERR)
    click.echo(json.dumps(done.content()) if as_json else "\n".join([_text(done), *_next(origin, target)]))


def _text(done: Migrated) -> str:
    width = max(map(len, done.tables))
    lines = [f"{name:<{width}} {one.rows:>12,}  {one.checksum[:16]}" for name, one in done.tables.items() if one.rows]
    lines.append(f"ledger: {done.ledger.rows} rows, head {done.ledger.hash[:16] or '-'}, its chain as it was")
    if done.unread:
        spools = ", ".join(map(str, done.unread))
        lines.append(f"not read to their end: spools {spools}; their files stay in the data directories of their nodes")
    lines.append("copied and compared" + (", after an interruption" if done.resumed else ""))
    return "\n".join(lines)


def _next(origin: Named, target: str) -> Iterator[str]:
    """What is left to do before a gateway serves from the target."""
    from gateway.export.source import path_of, without_password
    from gateway.store.open import SQLITE

    path = path_of(target)
    yield "next, before the gateway starts again:"
    yield f"- in its config `store: {f'{SQLITE}{path.absolute()}' if path else without_password(target)}`"
    yield "- `data_dir` stays where it is: its spools may hold what is not in the store yet"
    if path is None and path_of(origin.url) is not None:
        here = origin.folder if origin.folder is not None and (origin.folder / "keys.json").exists() else "DATA_DIR"
        yield "- the nodes of a shared store need `keys:`, and to go on with its units and tokens those that it had:"
        yield f"  `gateway keys --of {here}` prints them (a config that has `keys:` keeps its own)"
