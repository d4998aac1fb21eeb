"""What the head of a request must be before anyone is asked to answer it (RFC 9112, RFC 9110). Pure.

llhttp has taken it apart and has refused what is no HTTP; here is what it leaves to its user: Host, the form of the
target, versions, codings, expectations and sizes.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gateway.errors import (
    ExpectationFailed,
    HeadTooLarge,
    NotSupported,
    RequestError,
    TargetTooLong,
    VersionNotSupported,
)
from gateway.serving.asgi import Headers

# RFC 3986's host and port, but for the comma: where two Host fields were joined by a proxy, which one counts?
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+;=%-]+)(?::[0-9]*)?")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)
_ONCE = (b"host", b"transfer-encoding", b"expect")  # llhttp itself refuses a second content-length


class Limits(NamedTuple):
    """What a client may take: sizes in bytes, times in seconds."""

    head: int = 32_768
    fields: int = 100
    target: int = 8_192
    buffer: int = 65_536  # of a body that nobody has asked for yet; beyond it reading stops
    head_timeout: float = 10.0  # for a whole head, from the connection or from its first byte
    crowded_timeout: float = 1.0  # the same, where there are too many connections
    body_timeout: float = 30.0  # between two pieces of a body that somebody waits for
    body_rate: float = 1024.0  # bytes a second that such a body must come at, after the first `body_timeout` seconds
    send_timeout: float = 30.0  # without a byte taken by the client
    spared: float = 1.0  # after an answer, in which its client does not have to give way to a new one
    linger: float = 2.0  # to read the last answer, after which the connection is closed


DEFAULTS = Limits()


def check_version(version: str) -> None:
    """Raises VersionNotSupported (505)."""
    if version not in ("1.1", "1.0"):
        raise VersionNotSupported("only HTTP/1.1 and HTTP/1.0 are spoken here")


def check(version: str, fields: dict[bytes, bytes], headers: Headers) -> None:
    """Of a head with repeated fields, a coding or an expectation. Raises RequestError (400, 417, 501). `fields` are the
    headers by name."""
    if len(fields) != len(headers):
        _refuse_repeated(headers)
    if b"transfer-encoding" in fields:
        _check_coding(fields[b"transfer-encoding"], version)
    if b"expect" in fields and fields[b"expect"].strip().lower() != b"100-continue":
        raise ExpectationFailed("the only expectation that can be met is 100-continue")


def check_host(host: bytes | None, version: str) -> None:
    """RFC 9112 3.2: exactly one, and valid, on HTTP/1.1. Raises RequestError."""
    if host is None:
        if version == "1.1":
            raise RequestError("the header host is missing")
    elif not _HOST.fullmatch(host):
        raise RequestError("the header host must be a host name, with or without a port")


def check_size(target: bytes, headers: Headers, limits: Limits) -> None:
    """Raises HeadTooLarge (431)."""
    if len(headers) > limits.fields:
        raise HeadTooLarge(f"the request has more than {limits.fields} header fields")
    if len(target) + sum(len(name) + len(value) + 4 for name, value in headers) > limits.head:
        raise HeadTooLarge(f"the head of the request exceeds {limits.head} bytes")


def check_target(target: bytes, limits: Limits) -> None:
    """Raises TargetTooLong (414)."""
    if len(target) > limits.target:
        raise TargetTooLong(f"the request target exceeds {limits.target} bytes")


def check_authority(authority: bytes, host: bytes) -> None:
    """Of a target that names a host as well: if they differ, which one counts? Raises RequestError."""
    if authority.lower().removesuffix(b":80") != host.lower().removesuffix(b":80"):
        raise RequestError("the header host must name the host of the request target")


def split(method: str, target: bytes) -> tuple[bytes, bytes, bytes]:
    """Authority (if any), path and query of a target, in any of its forms (RFC 9112 3.2). Raises RequestError (400,
    501)."""
    if method == "CONNECT":
        raise NotSupported("CONNECT is not implemented: this is no proxy for other servers")
    if b"#" in target or not target.isascii():
        raise RequestError("the request target must be ASCII and have no fragment")
    authority = b""
    if not target.startswith(b"/"):
        authority, target = _origin_form(method, target)
    path, _, query = target.partition(b"?")
    return authority, path, query


def _origin_form(method: str, target: bytes) -> tuple[bytes, bytes]:
    if target == b"*" and method == "OPTIONS":
        return b"", target
    absolute = _ABSOLUTE.match(target)
    if absolute is None or not _HOST.fullmatch(absolute[1]):
        raise RequestError("the request target must be a path, or an absolute http URL")
    rest = target[absolute.end() :]
    return absolute[1], rest if rest.startswith(b"/") else b"/" + rest


def _refuse_repeated(headers: Headers) -> None:
    names = [name for name, _ in headers]
    for name in _ONCE:
        if names.count(name) > 1:
            raise RequestError(f"the header {name.decode()} must not be repeated")


def _check_coding(coding: bytes, version: str) -> None:
    """RFC 9112 6.1: chunked alone is understood, and in HTTP/1.0 the field means that the framing cannot be trusted."""
    if version == "1.0":
        raise RequestError("transfer-encoding must not be used with HTTP/1.0")
    if coding.strip().lower() != b"chunked":
        raise NotSupported("only the transfer coding chunked is implemented")
