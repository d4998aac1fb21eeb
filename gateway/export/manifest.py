"""`manifest.json`: what an export holds, of which moment, and how to tell that it is whole and unchanged."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from gateway import __version__
from gateway.export.catalog import Table
from gateway.export.facts import Selection
from gateway.export.moment import THRESHOLDS, Moment
from gateway.export.writers import iso
from gateway.store.connection import SCHEMA_VERSION

NAME = "manifest.json"
LAYOUT = 1  # of the files; a number for whoever reads them by program


class WrittenFile(msgspec.Struct, frozen=True):
    """One file, by its name in the folder."""

    name: str
    rows: int
    bytes: int
    sha256: str


class WrittenTable(NamedTuple):
    table: Table
    files: tuple[WrittenFile, ...]


class Manifest(msgspec.Struct, frozen=True):
    """The last file that an export writes."""

    content: dict[str, Any]

    @property
    def rows(self) -> dict[str, int]:
        """By table."""
        return {name: table["rows"] for name, table in self.content["tables"].items()}

    def write(self, folder: Path) -> None:
        text = msgspec.json.format(msgspec.json.encode(self.content), indent=2)
        with (folder / NAME).open("xb") as file:
            file.write(text + b"\n")
            file.flush()
            os.fsync(file.fileno())


def described(now: Moment, format: str, selected: Selection, written: Sequence[WrittenTable], at: int) -> Manifest:
    return Manifest(
        {
            "layout": LAYOUT,
            "program": __version__,
            "schema": SCHEMA_VERSION,
            "written_at": iso(at),
            "format": format,
            "step": now.step,
            "watermark": iso(now.watermark),
            "ledger": {"rows": now.last_decision, "head": now.ledger_head},
            "experiment": selected.experiment,
            "since": iso(selected.since) if selected.since else None,
            "until": iso(min(selected.until, now.watermark)),
            "thresholds": {name: msgspec.to_builtins(now.thresholds.get(name, THRESHOLDS)) for name in now.evidence},
            "tables": {one.table.name: _table(one) for one in written},
        }
    )


def _table(one: WrittenTable) -> dict[str, Any]:
    return {
        "about": one.table.about,
        "rows": sum(file.rows for file in one.files),
        "files": [msgspec.to_builtins(file) for file in one.files],
        "columns": [
            {"name": column.name, "type": column.kind, "unit": column.unit, "about": column.about}
            for column in one.table.columns
        ],
    }
