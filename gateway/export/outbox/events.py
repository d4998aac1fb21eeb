"""Events as CloudEvents 1.0 in JSON. An id is made of what the event is about: a fact has the same one for ever."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from gateway.export.columns import Column, Kind, Row
from gateway.export.facts import EXPOSURES, OUTCOMES
from gateway.export.ledger import DECISIONS, decision_row
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
        return self._event("exposure", str(row[0]), row[1], row[3] or row[2], _EXPOSURES, row)

    def outcome(self, row: Row) -> Event:
        """From a row of OUTCOMES."""
        decision, metric, id, at = row[0], row[5], row[6], row[8]
        return self._event("outcome", f"{decision}/{metric}/{id}", at, row[3] or row[2] or "", _OUTCOMES, row)

    def decision(self, row: Row) -> Event:
        """From a row of the ledger."""
        told = decision_row(row)
        return self._event("decision", str(row[0]), row[1], row[4] or row[3], _DECISIONS, told)

    def _event(self, kind: str, about: str, at: int, subject: str, columns: _Columns, row: Row) -> Event:
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
        data = dict(zip(columns.names, row, strict=True))
        for name, say in columns.said:
            if data[name] is not None:
                data[name] = say(data[name])
        head["data"] = data
        return Event(id, _encode(head))


class _Columns:
    """Names, and how what is stored is said in JSON."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.names = [column.name for column in columns]
        self.said = [(column.name, _SAY[column.kind]) for column in columns if column.kind in _SAY]
        # Beyond what a double holds, which is what numbers become in most readers of JSON.
        self.said += [(name, str) for name in self.names if name == "decision"]


def _raw(text: str) -> msgspec.Raw:
    """JSON as it is."""
    return msgspec.Raw(text.encode())


_SAY: dict[Kind, Any] = {"time": iso, "hash": bytes.hex, "flag": bool, "json": _raw}
_EXPOSURES, _OUTCOMES, _DECISIONS = (_Columns(columns) for columns in (EXPOSURES, OUTCOMES, DECISIONS))
