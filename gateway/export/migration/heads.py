"""How far a store has come: by what a source that goes on is noticed, and a target that is a store already."""

from __future__ import annotations

from itertools import chain
from typing import NamedTuple

from gateway.export.source import OpenStore


class LedgerHead(NamedTuple):
    """The last row of a ledger."""

    rows: int
    hash: str  # "" where there is no row

    def __str__(self) -> str:
        return f"a ledger of {self.rows:,} rows, head {self.hash[:16] or '-'}"


def ledger_head(store: OpenStore) -> LedgerHead:
    return LedgerHead(*(store.row("SELECT id, hash FROM ledger ORDER BY id DESC LIMIT 1") or (0, "")))


def compared(target: OpenStore, source: OpenStore) -> str:
    """What to say of a target that is a whole store already, in words."""
    there = f"it is a whole store already, with {ledger_head(target)}"
    if fingerprint(target) == fingerprint(source):
        return f"{there}, as far as the source has come"
    return f"{there}; the source is elsewhere, with {ledger_head(source)}"


def fingerprint(store: OpenStore) -> str:
    """By which is seen whether a source has gone on; a whole copy has the same, in whichever engine."""
    asked = (
        "SELECT step, at, watermark FROM fold_step ORDER BY step DESC LIMIT 1",
        "SELECT id, hash FROM ledger ORDER BY id DESC LIMIT 1",
        "SELECT max(revision) FROM plan",
        "SELECT sum(version) FROM release",
        "SELECT count(*), max(day) FROM expired",
        "SELECT count(*), max(at), max(through) FROM erasure",
        "SELECT count(*) FROM erased",
    )
    with store.transaction():
        found = [store.row(sql) or () for sql in asked]
    return repr([str(value) for value in chain.from_iterable(found)])
