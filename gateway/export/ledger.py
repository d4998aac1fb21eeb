"""The ledger as people read it: what was decided, when, by whom and why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gateway.export.columns import Column, Row
from gateway.export.facts import Selection
from gateway.export.source import OpenStore

if TYPE_CHECKING:
    from gateway.export.moment import Moment

_CHUNK = 100  # rows in memory; each holds a whole report

DECISIONS = (
    Column("id", "integer", "place in the ledger"),
    Column("at", "time", "when it was decided"),
    Column("step", "integer", "the fold step on which it rests"),
    Column("endpoint", "word", ""),
    Column("experiment", "word", ""),
    Column("kind", "word", "advance, hold, promote, rollback …"),
    Column("variant", "word", "that it is about, where it is about one"),
    Column("actor", "word", "who decided: gateway, or a person"),
    Column("reason", "text", ""),
    Column("text", "text", "the reason in a sentence"),
    Column("config_digest", "word", "of the config that was in use"),
    Column("body", "json", "everything, with the evidence, as it was hashed"),
    Column("hash", "text", "of this row and the one before, in hex: the chain of the ledger"),
)


def decisions(store: OpenStore, now: Moment, selected: Selection) -> Iterator[tuple[int, Row]]:
    """Rows of DECISIONS with their times."""
    after = 0
    # Of one experiment all are read: they are few.
    while rows := store.rows(
        "SELECT id, at, step, endpoint, experiment, kind, body, hash FROM ledger WHERE id > ? AND id <= ?"
        " ORDER BY id LIMIT ?",
        (after, now.last_decision, _CHUNK),
    ):
        for row in rows:
            if row[4] == (selected.experiment or row[4]) and selected.since <= row[1] < selected.until:
                yield row[1], decision_row(row)
        after = rows[-1][0]


def decision_row(row: Row) -> Row:
    """A row of DECISIONS, from one of the ledger."""
    id, at, step, endpoint, experiment, kind, body, digest = row
    told: dict[str, Any] = json.loads(body)
    said = (told.get(name, "") for name in ("variant", "actor", "reason", "text", "config_digest"))
    return id, at, step, endpoint, experiment, kind, *said, body, digest
