"""The bodies in which outcomes are posted: their forms, and the keys of one outcome.

one    {"decision": "<token>", "metric": "brier", "value": 0.04, "id": "optional", "at": "optional"}
       {"endpoint": "flight-delay", "unit": "user-42", "metric": ...}
many   a JSON array of these, {"outcomes": [...]}, or one per line as application/x-ndjson
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import orjson

from gateway.errors import RequestError

_LINES = b"application/x-ndjson"
MOST = 10_000  # outcomes in one request
_LONGEST_ID = 128
_LONGEST_NAME = 128
_KEYS = frozenset(("decision", "endpoint", "unit", "metric", "value", "id", "at"))
_ALLOWED = "decision, or endpoint and unit, then metric, value, and optionally id and at"
_WHICH = "`decision` must be the token from the answer's x-gateway-decision header"


class Posted(NamedTuple):
    """One outcome, its keys there and of the right type. `unit` is "" where it is posted by decision."""

    decision: str
    endpoint: str
    unit: str
    metric: str
    value: Any
    id: str
    at: Any  # when it happened, None where that is not said


def documents(body: bytes, content_type: bytes) -> tuple[Sequence[Any], bool]:
    """The outcomes of a request as they came, and whether it was a single one; a line that is no JSON came as the
    RequestError that refuses it. Raises RequestError if the body is no list of outcomes."""
    if content_type.split(b";")[0].strip().lower() == _LINES:
        lines = [(number, line) for number, line in enumerate(body.split(b"\n"), start=1) if line.strip()]
        return [_line(number, line) for number, line in _counted(lines)], False
    try:
        found = _json(body, "the body")
    except RequestError as error:
        if _begins_with_a_line(body):
            needed = f"outcomes one a line need the header `content-type: {_LINES.decode()}`"
            raise RequestError(f"{error}; {needed}") from error
        raise
    if isinstance(found, dict) and set(found) == {"outcomes"}:
        found = found["outcomes"]
    if isinstance(found, dict):
        return [found], True
    return _counted(found), False


def _line(number: int, line: bytes) -> Any:
    """A line has its own fault: those before and behind it are outcomes all the same."""
    try:
        return _json(line, f"line {number}")
    except RequestError as error:
        return error


def _begins_with_a_line(body: bytes) -> bool:
    """Whether these are lines, sent as something else."""
    first, _, rest = body.lstrip().partition(b"\n")
    if not (rest.strip() and first.startswith(b"{")):
        return False
    with suppress(orjson.JSONDecodeError):
        orjson.loads(first)
        return True
    return False


def _json(text: bytes, where: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"{where} is not valid JSON: {error}") from error


def _counted(found: Any) -> list[Any]:
    if not isinstance(found, list) or not found:
        raise RequestError("expected an outcome, or a list of at least one outcome")
    if len(found) > MOST:
        raise RequestError(f"at most {MOST} outcomes in one request, got {len(found)}")
    return found


def posted(document: Any) -> Posted:
    """One outcome; raises RequestError if it is none."""
    if isinstance(document, RequestError):
        raise document
    if not isinstance(document, dict):
        raise RequestError("an outcome is an object")
    if not document.keys() <= _KEYS:
        unknown = sorted(document.keys() - _KEYS)
        raise RequestError(f"unknown keys {unknown}; an outcome has {_ALLOWED}")
    get = document.get
    decision, metric, identifier = get("decision"), get("metric"), get("id", "")
    endpoint = unit = ""
    if decision is None and ("unit" in document or "endpoint" in document):
        endpoint, unit = _unit(get("endpoint"), get("unit"))
        decision = ""
    elif not isinstance(decision, str):
        raise RequestError(f"{_WHICH}; without one, name the `endpoint` and the `unit`")
    elif "unit" in document or "endpoint" in document:
        raise RequestError("an outcome has `decision`, or `endpoint` and `unit`, and not both")
    if not isinstance(metric, str) or not 0 < len(metric) <= _LONGEST_NAME:
        raise RequestError("`metric` must be the name of a metric")
    if not isinstance(identifier, str) or len(identifier) > _LONGEST_ID:
        raise RequestError(f"`id` must be a string of at most {_LONGEST_ID} characters")
    if not (metric.isprintable() and identifier.isprintable()):
        raise RequestError("`metric` and `id` must be printable")
    if "value" not in document:
        raise RequestError("`value` is missing")
    return Posted(decision, endpoint, unit, metric, document["value"], identifier, get("at"))


def _unit(endpoint: Any, unit: Any) -> tuple[str, str]:
    if not isinstance(endpoint, str) or not 0 < len(endpoint) <= _LONGEST_NAME:
        raise RequestError("`endpoint` must be the name of the endpoint that the unit's requests went to")
    # a header's value comes without blanks around it
    if not isinstance(unit, str) or not (unit := unit.strip(" \t")):
        raise RequestError("`unit` must be what the requests had in the endpoint's unit header, a string")
    return endpoint, unit
