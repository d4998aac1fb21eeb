"""The trace context of a request (W3C Trace Context, level 1): passed on as it is, or not at all."""

from __future__ import annotations

import re

from gateway.serving.asgi import Exchange

PARENT, STATE = b"traceparent", b"tracestate"
_IDS = rb"-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
_PARENT = re.compile(rb"00" + _IDS + rb"|(?!00|ff)[0-9a-f]{2}" + _IDS + rb"(?:-[!-~]*)?")  # later versions may go on


def is_passed_on(exchange: Exchange) -> bool:
    """Whether it has one traceparent, and a valid one: else whoever gets it has to begin a trace of its own."""
    parent = exchange.headers.get(PARENT)
    return parent is not None and PARENT not in exchange.repeated and _PARENT.fullmatch(parent) is not None
