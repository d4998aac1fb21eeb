"""Bytes of a client in, requests out, strictly parsed and bounded. No I/O and no clock.

A request is handed over as soon as its head is whole; its body follows. A GatewayError from `feed` is final for the
connection: what came last is no request, and nothing after it can be trusted.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import httptools

from gateway.errors import GatewayError, HeadTooLarge, RequestError
from gateway.serving.asgi import PEER
from gateway.serving.http1 import head
from gateway.serving.http1.exchange import HttpExchange
from gateway.serving.wire.forwarding import Peer

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.serving.asgi import Headers, Scope
    from gateway.serving.http1.head import Limits

    Begin = Callable[[Scope, dict[bytes, bytes], bool, bool], HttpExchange]

log = logging.getLogger(__name__)

SLICE = 16_384  # few enough that a client cannot have many requests taken in before the first is answered
CHUNKING = 8  # a chunk of one byte takes six on the wire; what exceeds this is trailers or extensions
_ASGI = {"version": "3.0", "spec_version": "2.4"}
_FRAMING = (b"content-length", b"transfer-encoding")
_Line = tuple[bytes, str, bytes]  # method, version, target


class RequestReader:
    """`begin` makes an exchange of scope, headers by name, whether the client waits for a 100, and whether another may
    follow."""

    __slots__ = (
        "_authority",
        "_begin",
        "_headers",
        "_host",
        "_limits",
        "_line",
        "_parser",
        "_peer",
        "_peers",
        "_scope",
        "_target",
        "_upgrading",
        "begun",
        "done",
        "reading",
        "received",
    )

    def __init__(self, begin: Begin, limits: Limits, client: Any, server: Any) -> None:
        self._begin = begin
        self._limits = limits
        self._peers = (client, server)
        self._peer = Peer(client[0] if client else None)
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: Headers = []
        self._upgrading = False
        # what was valid the last time: most clients send the same again and again
        self._host: bytes | None = None
        self._line: _Line | None = None
        self._authority = b""  # in the target, where it is one at all
        self._scope: dict[str, Any] = {}
        self.reading: HttpExchange | None = None  # whose body is arriving
        self.begun = False  # a request that is not whole yet; empty lines before one are skipped (RFC 9112 2.2)
        self.received = 0  # bytes since the last one was whole; not those that came with its end
        self.done = False  # nothing that comes is read any more

    def feed(self, data: bytes) -> None:
        """Take at most SLICE bytes."""
        self.received += len(data)
        while data:
            try:
                self._parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                self._ignore_upgrade(len(data))
            except httptools.HttpParserError as error:
                if not self.done:  # else it is what follows the last request
                    raise _cause(error) from None
                break
        if self.received and not self.done:
            self._check_progress()

    def dispose(self) -> None:
        """The parser holds our bound methods, and we one of the connection: only the collector would free them."""
        self.done = True
        del self._parser, self._begin

    def _check_progress(self) -> None:
        """Of what has arrived and is no whole request."""
        limit = self._limits.head
        reading = self.reading
        if reading is None:
            if self.received > limit:
                raise HeadTooLarge(f"the head of the request exceeds {limit} bytes")
        elif self.received > 2 * limit + CHUNKING * reading.size:
            raise HeadTooLarge(f"more than {limit} bytes of trailers or chunk extensions")

    def _ignore_upgrade(self, rest: int) -> None:
        """llhttp takes what follows an upgrade for another protocol. Here it is the body, or the next request: a new
        parser gets a head with the same framing, which nobody hears of; `rest` bytes are to follow."""
        assert self.reading is not None
        lines = [b"%b: %b\r\n" % field for field in self.reading.scope["headers"] if field[0] in _FRAMING]
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(lines))
        self.received = max(self.received, rest)

    # -- callbacks of httptools.HttpRequestParser; an exception in one stops the parser

    def on_message_begin(self) -> None:
        self.begun = True

    def on_url(self, url: bytes) -> None:
        self._target = target = self._target + url
        if len(target) > self._limits.target:
            head.check_target(target, self._limits)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        headers, target = self._headers, self._target
        self._headers, self._target = [], b""
        if self._upgrading:
            self._upgrading = False
            return
        if self.done:
            raise RequestError("nothing is read after the last request")
        limits = self._limits
        if len(headers) > limits.fields or self.received + SLICE > limits.head:  # the last may have ended in this slice
            head.check_size(target, headers, limits)
        parser = self._parser
        version = parser.get_http_version()
        line = (parser.get_method(), version, target)
        if line != self._line:
            self._scope = self._scope_of(*line)
            self._line = line
        fields = dict(headers)
        expects = b"expect" in fields
        if expects or b"transfer-encoding" in fields or len(fields) != len(headers):
            head.check(version, fields, headers)
        host = fields.get(b"host")
        if host is None or host != self._host:
            head.check_host(host, version)
            self._host = host
        if self._authority and host is not None:
            head.check_authority(self._authority, host)
        scope: Scope = self._scope.copy()
        scope["headers"] = headers
        current = version == "1.1"
        self.reading = self._begin(scope, fields, current and expects, current and parser.should_keep_alive())
        if b"upgrade" in fields:
            self._upgrading = parser.should_upgrade()

    def on_body(self, piece: bytes) -> None:
        self.reading.add(piece)  # type: ignore[union-attr]

    def on_message_complete(self) -> None:
        if self._upgrading:
            return
        reading, self.reading = self.reading, None
        reading.complete()  # type: ignore[union-attr]
        self.begun = False
        self.received = 0
        if self._headers:
            self._headers = []  # trailers
        if not reading.persistent:  # type: ignore[union-attr]
            self.done = True

    def _scope_of(self, verb: bytes, version: str, target: bytes) -> dict[str, Any]:
        """What the request line alone says."""
        head.check_version(version)
        method = verb.decode()
        self._authority, raw_path, query = head.split(method, target)
        path = raw_path.decode("ascii")
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "scheme": "http",
            "method": method,
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "client": self._peers[0],
            "server": self._peers[1],
            PEER: self._peer,
        }


def _cause(error: httptools.HttpParserError) -> GatewayError:
    """httptools puts an error of its own in the place of ours."""
    cause = error.__context__
    if isinstance(cause, GatewayError):
        return cause
    if cause is not None:
        log.error("the head of a request could not be read", exc_info=cause)
        return GatewayError("the gateway failed")
    return RequestError(f"invalid HTTP: {error}")
