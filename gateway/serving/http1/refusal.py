"""The answer to what no application is asked for, or in the place of one that gave none."""

from __future__ import annotations

from gateway.errors import GatewayError
from gateway.serving import problem
from gateway.serving.asgi import REQUEST_ID, fresh_id
from gateway.serving.http1 import answer
from gateway.serving.http1.answer import Defaults


def render(error: GatewayError, path: str, defaults: Defaults, *, head_only: bool) -> bytes:
    """The whole of it; it is the last on its connection."""
    request_id = fresh_id()
    status, headers, body = problem.render(error, path, request_id)
    headers = [*headers, (REQUEST_ID, request_id), (b"content-length", b"%d" % len(body))]
    head, _, _ = answer.render(status, headers, defaults, head_only, False, False)
    return head if head_only else head + body
