"""The one seam where exceptions become answers: status, body in the protocol's form, request id, Proxy-Status. An
upstream's own error passes without that mark, so that whoever gets it can tell whose it is."""

from __future__ import annotations

import orjson

from gateway.errors import GatewayError, MethodNotAllowed, RequestError, TooMany, UnsupportedEncoding
from gateway.serving import oip
from gateway.serving.asgi import Headers
from gateway.serving.calls import openai

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
    """Whose error it is (RFC 9209), and what the client can do about it, for its software."""
    hints = [(b"proxy-status", b"gateway; error=%b" % error.proxy_error.encode())]
    if isinstance(error, MethodNotAllowed):
        hints.append((b"allow", error.allowed.encode()))
    elif isinstance(error, UnsupportedEncoding):
        hints.append((b"accept-encoding", error.accepted.encode()))
    elif isinstance(error, TooMany):
        hints.append((b"retry-after", b"60"))
    elif error.status == 503:
        hints.append((b"retry-after", b"1"))
    return hints
