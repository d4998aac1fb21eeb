"""Both sides hold the same: every row of every table, the chain of the ledger, the bytes of the evidence."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import msgspec

from gateway.export.migration.copying import CHUNK, Copying, Tell
from gateway.export.migration.tables import KEYS, following, listed
from gateway.export.source import OpenStore

_ALL = 1 << 256
_NUL, _INSTEAD = "\0", "\N{REPLACEMENT CHARACTER}"  # PostgreSQL keeps no NUL in a text


class Digest(NamedTuple):
    """The rows of a table, counted and added up: the sum of their SHA-256, which no order changes."""

    rows: int
    checksum: str


class Verified(NamedTuple):
    """What became of a comparison."""

    tables: dict[str, Digest]  # of the target
    problems: list[str]  # in words; none where both sides hold the same


def verify(source: OpenStore, target: OpenStore, copying: Copying, tell: Tell) -> Verified:
    problems, tables = [], {}
    for table in KEYS:
        there, here = (digest(store, table, copying.compared(table), tell) for store in (source, target))
        tables[table] = here
        if there.rows != here.rows:
            problems.append(f"{table}: {there.rows:,} rows in the source, {here.rows:,} in the target")
        elif there.checksum != here.checksum:
            problems.append(f"{table}: the same number of rows, and not the same ones")
    there_broken, here_broken = source.broken_link(), target.broken_link()
    if here_broken != there_broken:
        problems.append(f"ledger: the chain breaks at row {here_broken}, and in the source at row {there_broken}")
    elif here_broken is not None:
        problems.append(f"ledger: the chain breaks at row {here_broken}, in the source too")
    return Verified(tables, problems)


def digest(store: OpenStore, table: str, columns: list[str], tell: Tell) -> Digest:
    """Of these columns."""
    rows = total = 0
    places = [columns.index(name) for name in KEYS[table]]
    behind: tuple[object, ...] = ()
    while part := store.rows(f"SELECT {listed(columns)} FROM {table} {following(table, behind, rows, CHUNK)}", behind):
        for row in part:
            total += int.from_bytes(hashlib.sha256(msgspec.msgpack.encode(_alike(row))).digest(), "big")
        rows += len(part)
        behind = tuple(part[-1][place] for place in places)
        tell(f"verifying {table}", rows)
    return Digest(rows, f"{total % _ALL:064x}")


def _alike(row: tuple[object, ...]) -> list[object]:
    """Values as both engines give them."""
    return [value.replace(_NUL, _INSTEAD) if isinstance(value, str) and _NUL in value else value for value in row]
