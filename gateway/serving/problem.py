"""The one seam where exceptions become answers: status, body in the protocol's form, request id."""

from __future__ import annotations

import orjson

from gateway.errors import GatewayError, MethodNotAllowed, RequestError, UnsupportedEncoding
from gateway.serving import oip
from gateway.serving.asgi import Headers
from gateway.serving.calls import openai
from gateway.serving.wire import coding

_PROBLEM: Headers = [(b"content-type", b"application/problem+json")]
_LONGEST = 1000  # characters of a message: it may quote what the client sent


def render(error: GatewayError, path: str, request_id: bytes) -> tuple[int, Headers, bytes]:
    """Status, headers and body of an error: OIP's own form below /v2, OpenAI's below /v1 (but for our own outcomes),
    RFC 9457 elsewhere."""
    message = str(error)[:_LONGEST]
    if path == "/v2" or path.startswith("/v2/"):
        return error.status, [*oip.JSON, *_hints(error)], oip.error_body(message)
    if path.startswith("/v1/") and path != "/v1/outcomes":
        body = openai.error_body(message, error.reason, asked_for=isinstance(error, RequestError))
        return error.status, [*openai.JSON, *_hints(error)], body
    body = orjson.dumps(
        {
            "type": f"urn:gateway:{error.reason}",
            "title": error.reason.replace("_", " "),
            "status": error.status,
            "detail": message,
            "request_id": request_id.decode(),
        }
    )
    return error.status, [*_PROBLEM, *_hints(error)], body


def _hints(error: GatewayError) -> Headers:
    """What the client can do about it, for its software."""
    if isinstance(error, MethodNotAllowed):
        return [(b"allow", error.allowed.encode())]
    if isinstance(error, UnsupportedEncoding):
        return [(b"accept-encoding", coding.CODINGS.encode())]
    if error.status == 503:
        return [(b"retry-after", b"1")]
    return []
