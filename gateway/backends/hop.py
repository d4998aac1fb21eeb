"""Which header fields belong to one connection only and must not travel on (RFC 9110 7.6.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.backends.base import Headers

HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)  # proxy-status is absent on purpose: RFC 9209 defines it as end-to-end

# A peer that lists one of these in `connection` would make us drop what the next hop depends on.
PROTECTED = frozenset(
    {
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"cookie",
        b"host",
        b"set-cookie",
        b"traceparent",
        b"tracestate",
        b"x-request-id",
    }
)


def end_to_end(headers: Headers, dropped: frozenset[bytes] = HOP) -> Headers:
    """A new list without the fields of `dropped` (which must include HOP) and those `connection` names."""
    return split(headers, dropped)[0]


def split(headers: Headers, dropped: frozenset[bytes] = HOP) -> tuple[Headers, Headers]:
    """What travels on, and the fields of `dropped` that do not."""
    kept: Headers = []
    removed: Headers = []
    for field in headers:
        (removed if field[0] in dropped else kept).append(field)
    named = _named(removed) if removed else None
    return [field for field in kept if field[0] not in named] if named else kept, removed


def _named(removed: Headers) -> set[bytes] | None:
    """The fields that `connection` lists. Its usual options, close and keep-alive, name no field."""
    named: set[bytes] | None = None
    for name, value in removed:
        if name == b"connection" and value.strip().lower() not in (b"keep-alive", b"close"):
            named = (named or set()) | {option.strip().lower() for option in value.split(b",")}
    return named - PROTECTED if named else None
