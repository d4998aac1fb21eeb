"""The protocol's bytes on their way to an upstream and back: spliced, never written anew.

Written anew, the JSON part would have another length than its header says, and lose what we do not know.
"""

from __future__ import annotations

from urllib.parse import quote

import orjson

from gateway.backends.base import Headers
from gateway.errors import BadOutput, RequestError
from gateway.serving.oip.request import HEADER_LENGTH, LARGE
from gateway.serving.wire import coding
from gateway.serving.wire.headers import field
from gateway.serving.wire.splice import every_top_level, replaced

LARGEST = 64 << 20  # bytes of a coded answer once it is decoded to be masked


def target(raw_path: bytes, upstream_model: str) -> bytes:
    """The path below /v2/models/ with the upstream's name for the model; the rest stays as the client encoded it."""
    root, models, _, *rest = raw_path[1:].split(b"/")
    return b"/" + b"/".join([root, models, quote(upstream_model, safe="").encode(), *rest])


def heavy(headers: Headers, body: bytes) -> bool:
    """Whether masking this answer takes so long that it must not happen on the event loop."""
    return len(body) > LARGE or coding.grows(dict(headers), len(body))


def mask(headers: Headers, body: bytes, public_name: str, key: bytes = b"model_name") -> tuple[Headers, bytes]:
    """An answer that shows `public_name` under a top-level key, if it has that key, and lengths that are true of it.

    Raises BadOutput for an answer in a coding that cannot be undone, or shorter than its header says.
    """
    fields = dict(headers)
    packed = field(headers, b"content-encoding") or b"identity"
    text = _unpacked(body, packed)
    length = _json_length(fields, len(text))
    # The upstream cannot be asked which of two counts, so every one is replaced.
    head = replaced(text[:length], every_top_level(text[:length], key), orjson.dumps(public_name))
    if head == text[:length]:
        return headers, body
    text = head + text[length:]
    body = text if packed == b"identity" else coding.encoded(text, packed.decode().removeprefix("x-"))
    changed = {HEADER_LENGTH: b"%d" % len(head), b"content-length": b"%d" % len(body)}
    return [(name, changed.get(name, value)) for name, value in headers], body


def _unpacked(body: bytes, packed: bytes) -> bytes:
    try:
        return coding.decoded(body, packed, LARGEST)
    except RequestError as error:
        raise BadOutput(f"the upstream's answer cannot be masked: {error}") from error


def _json_length(fields: dict[bytes, bytes], size: int) -> int:
    declared = fields.get(HEADER_LENGTH)
    if declared is None:
        return size
    if not declared.isdigit() or len(declared) > 18 or int(declared) > size:
        raise BadOutput("the upstream's answer is shorter than its inference-header-content-length")
    return int(declared)
