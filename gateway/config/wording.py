"""What pydantic found wrong, in words for the person who edits the file."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.config.scalars import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pydantic_core import ErrorDetails

    from gateway.config.document import Document, Steps

_KINDS = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "keys and values",
    "mapping_type": "keys and values",
    "model_type": "keys and values",
    "tuple_type": "a list",
}
_LIMITS = {
    "greater_than": ("gt", "a number greater than"),
    "greater_than_equal": ("ge", "a number of at least"),
    "less_than": ("lt", "a number less than"),
    "less_than_equal": ("le", "a number of at most"),
}


class Finding(NamedTuple):
    """Something wrong at `steps`; `at_key` where the key itself is wrong, not its value."""

    steps: Steps
    message: str
    at_key: bool = False


def findings(errors: Iterable[ErrorDetails], document: Document, schema: dict[str, Any]) -> Iterator[Finding]:
    """The findings of a validation, in the order of `errors`."""
    for error in errors:
        if _follows(error):
            continue
        steps = tuple(step for step in error["loc"] if step != "[key]")
        at_key = error["type"] == "extra_forbidden" or "[key]" in error["loc"]
        yield Finding(steps, _message(error, steps, document, schema), at_key)


def _follows(error: ErrorDetails) -> bool:
    """Whether the error only repeats another: a default or a length that could not be known because of it."""
    if error["type"] == "too_short":
        return bool(len(error["input"]) >= error["ctx"]["min_length"])
    return error["type"] == "default_factory_not_called"


def closest(word: object, known: Iterable[str]) -> str:
    """`: did you mean 'x'?`, or what there is to choose from."""
    names = list(known)
    near = difflib.get_close_matches(str(word).lower(), names, n=1, cutoff=0.6)
    if near:
        return f": did you mean {near[0]!r}?"
    return f": known are {', '.join(names[:20])}" if names else ""


def _message(error: ErrorDetails, steps: Steps, document: Document, schema: dict[str, Any]) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "missing" and isinstance(steps[-1], int):
        return "expected an entry, found none"
    if kind == "missing":
        about = part_at(schema, steps).get("description", "").split(". ")[0].rstrip(".")
        return f"expected this key, found none ({about})"
    if kind == "extra_forbidden":
        return f"unknown key{closest(steps[-1], part_at(schema, steps[:-1]).get('properties', {}))}"
    if kind == "literal_error":
        found = _found(error, steps, document)
        return f"expected {context['expected']}, found {found}{_meant(error, context)}"
    if kind in ("too_short", "too_long"):
        return _length(kind, context, error["input"])
    return f"expected {_expected(error, context)}, found {_found(error, steps, document)}"


def _expected(error: ErrorDetails, context: dict[str, Any]) -> str:
    kind = error["type"]
    if kind in _LIMITS:
        key, words = _LIMITS[kind]
        return f"{words} {context[key]:g}"
    if kind == "finite_number":
        return "a finite number"
    return _KINDS.get(kind) or f"another value ({error['msg']})"


def _found(error: ErrorDetails, steps: Steps, document: Document) -> str:
    value = error["input"]
    # a number is shown as it was written: 1e3 and not 1000.0
    return document.written.get(steps, shown(value)) if type(value) in (int, float) else shown(value)


def _meant(error: ErrorDetails, context: dict[str, Any]) -> str:
    choices = [choice.strip("' ") for choice in context["expected"].replace(" or ", ",").split(",")]
    near = difflib.get_close_matches(str(error["input"]).lower(), choices, n=1, cutoff=0.6)
    return f": did you mean {near[0]!r}?" if near and len(choices) > 1 else ""


def _length(kind: str, context: dict[str, Any], found: Any) -> str:
    bound, words = ("min_length", "at least") if kind == "too_short" else ("max_length", "at most")
    count, entries = context[bound], "entry" if context[bound] == 1 else "entries"
    return f"expected {words} {count} {entries}, found {len(found)}"


def part_at(schema: dict[str, Any], steps: Steps) -> dict[str, Any]:
    """What the JSON Schema says of the place `steps`."""
    part = _plain(schema, schema)
    for step in steps:
        part = _plain(_inner(part, step), schema)
    return part


def _inner(part: dict[str, Any], step: str | int) -> dict[str, Any]:
    if isinstance(step, int):
        return dict(part.get("items", {}))
    properties = part.get("properties", {})
    if step in properties:
        return dict(properties[step])
    return dict(next(iter(part.get("patternProperties", {}).values()), {}))


def _plain(part: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """`part` with a reference or an alternative resolved to what holds keys; its own words win."""
    for choice in part.get("anyOf", [part]):
        if "$ref" in choice:
            target = schema["$defs"][choice["$ref"].rsplit("/", 1)[-1]]
            return {**target, **{key: value for key, value in part.items() if key == "description"}}
        if choice.get("type") in ("object", "array"):
            return {**part, **choice}
    return part
