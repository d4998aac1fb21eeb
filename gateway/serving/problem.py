"""The one seam where exceptions become answers: status, body in the protocol's form, request id."""

from __future__ import annotations

import orjson

from gateway.errors import GatewayError
from gateway.serving import oip
from gateway.serving.asgi import Headers

_PROBLEM: Headers = [(b"content-type", b"application/problem+json")]


def render(error: GatewayError, path: str, request_id: bytes) -> tuple[int, Headers, bytes]:
    """Status, headers and body of an error: OIP's own form below /v2, RFC 9457 elsewhere."""
    if path.startswith("/v2/"):
        return error.status, oip.JSON, oip.error_body(str(error))
    body = orjson.dumps(
        {
            "type": f"urn:gateway:{error.reason}",
            "title": error.reason.replace("_", " "),
            "status": error.status,
            "detail": str(error),
            "request_id": request_id.decode(),
        }
    )
    return error.status, _PROBLEM, body
