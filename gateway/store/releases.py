"""What follows from the facts: experiments, release states, the ledger, plans and the quarantine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from gateway.errors import Overtaken
from gateway.plan import Slot
from gateway.store.base import LedgerRow, PlanRow
from gateway.store.tables import Tables

_PLAN = "revision, at, as_of, config_digest, shares, slots"
_LEDGER = "id, at, step, endpoint, experiment, kind, body, hash"


class ReleaseTables(Tables):
    """The releasing half of `store.base.Store`."""

    def experiments(self) -> dict[str, tuple[str, str]]:
        rows = self.rows("SELECT id, endpoint, definition FROM experiment ORDER BY started_at, id")
        return {id: (endpoint, definition) for id, endpoint, definition in rows}

    def add_experiment(self, id: str, endpoint: str, definition: str, at: int) -> None:
        self.write(
            "INSERT INTO experiment (id, endpoint, definition, started_at) VALUES (?, ?, ?, ?)",
            (id, endpoint, definition, at),
        )

    def releases(self) -> dict[str, tuple[int, str]]:
        rows = self.rows("SELECT endpoint, version, state FROM release")
        return {endpoint: (version, state) for endpoint, version, state in rows}

    def save_release(self, endpoint: str, expected: int, state: str) -> int:
        if expected == 0:
            changed = self.write(
                "INSERT INTO release (endpoint, version, state) VALUES (?, 1, ?) ON CONFLICT DO NOTHING",
                (endpoint, state),
            )
        else:
            changed = self.write(
                "UPDATE release SET version = version + 1, state = ? WHERE endpoint = ? AND version = ?",
                (state, endpoint, expected),
            )
        if changed != 1:
            raise Overtaken(f"the release state of {endpoint} was changed by somebody else")
        return expected + 1

    def append_ledger(
        self, at: int, step: int, endpoint: str, experiment: str, kind: str, body: Mapping[str, Any]
    ) -> LedgerRow:
        number, before = self.row("SELECT id, hash FROM ledger ORDER BY id DESC LIMIT 1") or (0, "")
        row = (number + 1, at, step, endpoint, experiment, kind, json.dumps(body, sort_keys=True))
        digest = _link(before, row)
        self.write(f"INSERT INTO ledger ({_LEDGER}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row, digest))
        return _ledger_row((*row, digest))

    def ledger(self, limit: int = 100, experiment: str = "") -> list[LedgerRow]:
        where, about = ("WHERE experiment = ?", (experiment,)) if experiment else ("", ())
        rows = self.rows(f"SELECT {_LEDGER} FROM ledger {where} ORDER BY id DESC LIMIT ?", (*about, limit))
        return [_ledger_row(row) for row in reversed(rows)]

    def broken_link(self) -> int | None:
        before = ""
        for number, (*row, digest) in enumerate(self.rows(f"SELECT {_LEDGER} FROM ledger ORDER BY id"), 1):
            if row[0] != number or digest != _link(before, row):
                return number
            before = digest
        return None

    def decisions_by_kind(self, experiment: str) -> dict[str, int]:
        return dict(self.rows("SELECT kind, count(*) FROM ledger WHERE experiment = ? GROUP BY kind", (experiment,)))

    def last_plan(self) -> PlanRow | None:
        row = self.row(f"SELECT {_PLAN} FROM plan ORDER BY revision DESC LIMIT 1")
        return PlanRow(*row) if row else None

    def next_revision(self, after: int) -> int:
        last = self.last_plan()
        return max(last.revision if last else 0, after) + 1

    def add_plan(self, plan: PlanRow) -> None:
        self.write(f"INSERT INTO plan ({_PLAN}) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (revision) DO NOTHING", plan)

    def plan_slots(self, revision: int, endpoint: str) -> tuple[Slot, ...]:
        row = self.row("SELECT slots FROM plan WHERE revision = ?", (revision,))
        slots = json.loads(row[0]).get(endpoint, ()) if row else ()
        return tuple(Slot(start=start, variant=variant) for start, variant in slots)

    def quarantine(self, endpoint: str, artifact: str, experiment: str, at: int) -> None:
        self.write(
            "INSERT INTO quarantine (endpoint, artifact, experiment, at) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (endpoint, artifact) DO UPDATE SET experiment = excluded.experiment, at = excluded.at",
            (endpoint, artifact, experiment, at),
        )

    def quarantined(self, endpoint: str, artifact: str) -> str | None:
        row = self.row("SELECT experiment FROM quarantine WHERE endpoint = ? AND artifact = ?", (endpoint, artifact))
        return row[0] if row else None

    def release_from_quarantine(self, endpoint: str, artifact: str) -> None:
        self.write("DELETE FROM quarantine WHERE endpoint = ? AND artifact = ?", (endpoint, artifact))


def _link(before: str, row: tuple[Any, ...] | list[Any]) -> str:
    """The hash of a row, which takes in the hash of the row before: no row can be changed or left out later."""
    return hashlib.sha256(json.dumps([before, *row]).encode()).hexdigest()


def _ledger_row(row: tuple[Any, ...]) -> LedgerRow:
    id, at, step, endpoint, experiment, kind, body, digest = row
    return LedgerRow(id, at, step, endpoint, experiment, kind, json.loads(body), digest)
