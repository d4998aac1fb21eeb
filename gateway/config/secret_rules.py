"""What the secrets of an installation must be, once the environment has filled them in. No finding repeats one."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from gateway.config import kinds, schema
from gateway.config.draft import mapping, part
from gateway.config.places import SECRET, filled
from gateway.config.wording import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.config.document import Steps, Value


_STORE: TypeAdapter[str] = TypeAdapter(kinds.StoreUrl)


def secret_findings(raw: Value) -> Iterator[Finding]:
    """Findings about `keys`, and about what `store` takes from the environment."""
    store = mapping(raw).get("store")
    if isinstance(store, str) and _is_shared(store):
        try:
            filled(store, os.environ)
        except KeyError as error:
            yield Finding(("store",), f"expected the variable {error.args[0]} in the environment, found none")
    given = mapping(raw).get("keys")
    if given is None:
        if _is_shared(store):
            yield Finding(
                ("store",),
                "expected `keys` beside a store that nodes share: all of them need the same; `gateway keys` makes some,"
                " `gateway keys --of DATA_DIR` prints those of a node that was alone, whose units and tokens go on",
                at_key=True,
            )
        return
    keys = part(schema.Keys, given)
    if keys is None:
        return
    for index, template in enumerate(keys.signing):
        yield from _secret(("keys", "signing", index), template)
    yield from _secret(("keys", "pepper"), keys.pepper)


def _is_shared(store: Value) -> bool:
    """Of an address that is refused anyway nothing more is said."""
    try:
        return not _STORE.validate_python(store, context={"base": Path()}).startswith("sqlite:")
    except ValidationError:
        return False


def _secret(steps: Steps, template: str) -> Iterator[Finding]:
    try:
        secret = filled(template, os.environ)
    except KeyError as error:
        yield Finding(steps, f"expected the variable {error.args[0]} in the environment, found none")
        return
    if not re.fullmatch(SECRET, secret):
        yield Finding(steps, f"expected 64 hex digits, found {len(secret)} characters; `gateway keys` makes some")
