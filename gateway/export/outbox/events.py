"""Events as CloudEvents 1.0 in JSON. An id is made of what the event is about: a fact has the same one for ever."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from gateway.export.columns import Column, Kind, Row
from gateway.export.facts import EXPOSURES, OUTCOMES
from gateway.export.records import DECISIONS, decision_row
from gateway.export.writers import iso

_encode = msgspec.json.Encoder().encode


class Event(NamedTuple):
    """One thing that happened, ready to be sent."""

    id: str
    text: bytes  # JSON without a line break


class Teller:
    """Makes events; `source` tells the events of several gateways apart (CloudEvents: source and id are unique)."""

    def __init__(self, source: str) -> None:
        self._source = source

    def exposure(self, row: Row) -> Event:
        """From a row of EXPOSURES."""
        return self._event("exposure", str(row[0]), row[1], row[3] or row[2], EXPOSURES, row)

    def outcome(self, row: Row) -> Event:
        """From a row of OUTCOMES."""
        decision, metric, id, at = row[0], row[5], row[6], row[8]
        return self._event("outcome", f"{decision}/{metric}/{id}", at, row[3] or row[2] or "", OUTCOMES, row)

    def decision(self, row: Row) -> Event:
        """From a row of the ledger."""
        told = decision_row(row)
        return self._event("decision", str(row[0]), row[1], row[4] or row[3], DECISIONS, told)

    def _event(self, kind: str, about: str, at: int, subject: str, columns: Sequence[Column], row: Row) -> Event:
        id = f"{kind}/{about}"
        head: dict[str, Any] = {
            "specversion": "1.0",
            "id": id,
            "source": self._source,
            "type": f"gateway.{kind}",
            "time": iso(at),
        }
        if subject:
            head["subject"] = subject
        head["datacontenttype"] = "application/json"
        head["data"] = {column.name: _said(column, value) for column, value in zip(columns, row, strict=True)}
        return Event(id, _encode(head))


def _said(column: Column, value: Any) -> Any:
    if value is None:
        return None
    if column.name == "decision":
        return str(value)  # beyond what a double holds, which is what numbers become in most JSON readers
    say = _SAY.get(column.kind)
    return value if say is None else say(value)


_SAY: dict[Kind, Any] = {"time": iso, "hash": bytes.hex, "flag": bool, "json": json.loads}
