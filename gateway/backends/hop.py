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

OWN_FIELDS = HOP | {b"host", b"content-length", b"expect"}  # written, or answered, by this side of the gateway

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


USUAL = (b"keep-alive", b"close")  # options of `connection` that name no field


def end_to_end(headers: Headers, dropped: frozenset[bytes] = HOP) -> Headers:
    """A new list without the fields of `dropped` (which must include HOP) and those `connection` names."""
    kept = [field for field in headers if field[0] not in dropped]
    if len(kept) == len(headers):
        return kept
    named = named_by(headers)
    return [field for field in kept if field[0] not in named] if named else kept


def named_by(headers: Headers) -> set[bytes]:
    """The fields that `connection` lists."""
    named: set[bytes] = set()
    for name, value in headers:
        if name == b"connection" and value.strip().lower() not in USUAL:
            named.update(option.strip().lower() for option in value.split(b","))
    return named - PROTECTED
