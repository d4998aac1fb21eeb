"""What secrets must be, once the environment has filled them in. No finding repeats one."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from gateway.config import kinds, schema
from gateway.config.draft import EndpointDraft, mapping, part
from gateway.config.places import KEY, SECRET, TEMPLATE, filled
from gateway.config.wording import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.config.document import Steps, Value


_STORE: TypeAdapter[str] = TypeAdapter(kinds.StoreUrl)


def secret_findings(raw: Value, drafts: Sequence[EndpointDraft]) -> Iterator[Finding]:
    """Findings about everything that the environment fills in."""
    yield from _outcome_keys(raw)
    yield from _store(raw)
    yield from _keys(raw)
    for draft in drafts:
        yield from _headers(draft)


def _outcome_keys(raw: Value) -> Iterator[Finding]:
    outcomes = part(schema.Outcomes, mapping(raw).get("outcomes", {}))
    for index, template in enumerate(outcomes.keys if outcomes else ()):
        expected = "expected a key of at least 16 letters, digits or ._~+/-, found {} characters"
        yield from _filled(("outcomes", "keys", index), template, KEY, expected)


def _store(raw: Value) -> Iterator[Finding]:
    store = mapping(raw).get("store")
    if not _is_shared(store):
        return
    yield from _filled(("store",), str(store))
    if mapping(raw).get("keys") is None:
        yield Finding(
            ("store",),
            "expected `keys` beside a store that nodes share: all of them need the same; `gateway keys` makes some,"
            " `gateway keys --of DATA_DIR` prints those of a node that was alone, whose units and tokens go on",
            at_key=True,
        )


def _keys(raw: Value) -> Iterator[Finding]:
    given = mapping(raw).get("keys")
    keys = None if given is None else part(schema.Keys, given)
    if keys is not None:
        expected = "expected 64 hex digits, found {} characters; `gateway keys` makes some"
        for index, template in enumerate(keys.signing):
            yield from _filled(("keys", "signing", index), template, SECRET, expected)
        yield from _filled(("keys", "pepper"), keys.pepper, SECRET, expected)


def _headers(draft: EndpointDraft) -> Iterator[Finding]:
    for name, variant in draft.variants.items():
        for header, template in (variant.headers if variant else {}).items():
            steps = (*draft.steps, "variants", name, "headers", header)
            yield from _filled(steps, template, TEMPLATE, "expected variables that make a header of printable ASCII")


def _is_shared(store: Value) -> bool:
    """Of an address that is refused anyway nothing more is said."""
    try:
        return not _STORE.validate_python(store, context={"base": Path()}).startswith("sqlite:")
    except ValidationError:
        return False


def _filled(steps: Steps, template: str, pattern: str = "(?s:.*)", expected: str = "") -> Iterator[Finding]:
    """`expected` is said of what does not match the pattern; of the value it may name the length alone."""
    try:
        secret = filled(template, os.environ)
    except KeyError as error:
        yield Finding(steps, f"expected the variable {error.args[0]} in the environment, found none")
        return
    if not re.fullmatch(pattern, secret):
        yield Finding(steps, expected.format(len(secret)))
