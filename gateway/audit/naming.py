"""Differences, said in the words of the experiment: which challenger, metric and segment they are about."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from gateway.audit.finding import Finding
from gateway.evidence.definition import Definition
from gateway.evidence.parts import key_of
from gateway.evidence.report import Report, Thresholds
from gateway.store.base import LedgerRow


def plain(report: Report) -> Any:
    """As the ledger keeps it."""
    return json.loads(json.dumps(msgspec.to_builtins(report)))


def thresholds_of(evidence: dict[str, Any]) -> Thresholds | None:
    """Raises nothing: what cannot be read is not known."""
    try:
        return msgspec.convert(evidence.get("thresholds"), Thresholds | None)
    except msgspec.ValidationError:
        return None


def in_report(
    report: Report, found: Any, path: tuple[str, ...], expected: object, value: object, row: LedgerRow
) -> Finding:
    """Which test, or estimate, of the report in a row differs."""
    about: dict[str, str] = {}
    if path[0] in ("tests", "estimates") and len(path) > 1:
        place = int(path[1])
        for document in (found, plain(report)):
            if place < len(document[path[0]] or []):
                about = {name: document[path[0]][place][name] for name in ("challenger", "metric", "segment")}
                test = document[path[0]][place].get("name", "")
                path = (path[0].removesuffix("s"), *((test,) if test else ()), *path[2:])
                break
    return Finding(
        what=f"report in row {row.id}",
        text=".".join(path),
        step=row.step,
        experiment=report.experiment,
        **about,
        expected=short(expected),
        found=short(value),
    )


def named(text: str, definition: Definition) -> tuple[str, str, str, str]:
    """Kind, challenger, metric and segment of a part of the evidence, "" where it has none."""
    try:
        kind, *rest = key_of(text)
    except KeyError:
        return text, "", "", ""
    if kind == "scorer":
        return kind, "", rest[0], ""
    arm = definition.arms[int(rest[0])] if rest else ""
    metric, segment, *_ = (*rest[1:], "", "")
    return kind, arm, metric, segment


def decoded(state: bytes | None) -> Any:
    if state is None:
        return None
    try:
        return msgspec.msgpack.decode(state)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return f"{len(state)} bytes that cannot be read"


def short(value: object) -> str:
    text = value if isinstance(value, str) else "nothing" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
