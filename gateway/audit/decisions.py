"""What the gateway decided, decided again from what the ledger says it knew."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.evidence.definition import Definition
from gateway.evidence.report import Report
from gateway.release.policy import decide, would_be
from gateway.release.state import Decision
from gateway.release.view import View
from gateway.store.base import LedgerRow


def as_decided(row: LedgerRow, definition: Definition, report: Report) -> tuple[dict[str, str], dict[str, Any]] | None:
    """The decision that follows, and that of the row; None if the row does not say on what terms it was made.

    A person's commands, edits of the config, and what was stopped while the store was away follow from no evidence.
    """
    if row.body.get("actor") != "gateway" or row.body.get("terms") is None:
        return None
    found = {"kind": row.kind, **{name: row.body.get(name) for name in ("reason", "text", "variant")}}
    try:
        view = _view(row.body["terms"], definition, report)
    except msgspec.ValidationError as error:
        return {"terms": "what the policy needs"}, {"terms": str(error)}
    decision = _decision(view, row)
    expected = {name: str(getattr(decision, name)) for name in ("kind", "reason", "text", "variant")}
    if decision.kind == "advance":
        expected["stage"], found["stage"] = decision.stage, (row.body.get("to") or {}).get("stage")
    return expected, found


def _view(terms: dict[str, Any], definition: Definition, report: Report) -> View:
    known = {"definition": msgspec.to_builtins(definition), "report": msgspec.to_builtins(report)}
    return msgspec.convert({**terms, **known}, View)


def _decision(view: View, row: LedgerRow) -> Decision:
    if row.kind == "continue":  # of a trial of equals: one of those that statistics would have led to
        said = (row.body.get("reason"), row.body.get("variant"))
        for decision in would_be(view):
            if (decision.reason, decision.variant) == said:
                return decision
    decision = decide(view)
    if decision.kind == "inconclusive" and view.rules.on_inconclusive == "hold":
        return msgspec.structs.replace(decision, kind="hold")
    return decision
