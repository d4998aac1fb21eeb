"""Headers: what one says, and which travel on, from the client to an upstream and from an upstream to the client."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.backends import hop
from gateway.backends.base import Headers
from gateway.serving.asgi import REQUEST_ID
from gateway.serving.wire.forwarding import is_forwarding
from gateway.serving.wire.verdicts import Verdicts

OURS = b"x-gateway-"
_NOT_FORWARDED = hop.OWN_FIELDS | {REQUEST_ID}
# Never taken over from an upstream: the answer gets its own, and two of them would contradict each other.
_NOT_PASSED_BACK = frozenset((b"date", REQUEST_ID))


def field(headers: Headers, name: bytes) -> bytes:
    """The value of a header that is a word or a number, in lower case; b"" if it is not there."""
    return next((value.strip().lower() for known, value in headers if known == name), b"")


def is_coded(headers: Headers) -> bool:
    """Whether a body is compressed, or the like."""
    return field(headers, b"content-encoding") not in (b"", b"identity")


def is_event_stream(headers: Headers) -> bool:
    """Whether a body is a stream of events (WHATWG HTML, section 9.2)."""
    return field(headers, b"content-type").split(b";")[0].rstrip() == b"text/event-stream"


def travelling(unit_header: bytes, own: Iterable[bytes] = (), *, masked: bool) -> Verdicts:
    """To an upstream; `own` are the headers that some variant sets itself; `masked`: its answer must be readable, so
    it is offered no coding.

    CGI-like upstreams read `x_user_id` as `x-user-id`: what we drew by, or set, must not have a second value there.
    """
    spelled = frozenset((unit_header, *own))
    twins = frozenset([_dashed(name) for name in spelled])

    def decide(name: bytes) -> bool:
        twin = _dashed(name)
        if _is_kept_back(twin) or (masked and name == b"accept-encoding"):
            return False
        return twin not in twins or name in spelled

    return Verdicts(decide)


def _is_kept_back(name: bytes) -> bool:
    """Never taken over from a client: it is ours to set, or would let a client speak for the gateway."""
    return name in _NOT_FORWARDED or is_forwarding(name) or name.startswith(OURS)


def _dashed(name: bytes) -> bytes:
    return name.replace(b"_", b"-")


returning = Verdicts(lambda name: name not in _NOT_PASSED_BACK and not name.startswith(OURS))
"""To the client."""
