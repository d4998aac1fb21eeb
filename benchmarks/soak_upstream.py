"""An upstream for `soak` and `slow`: answers, streams, and misbehaves as a request's header `x-fault` asks it to."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import cast

import click
import httptools
import uvloop

OK = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n{"score": 0.25}'
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n"
PIECE, LAST = b"400\r\n" + b"x" * 1024 + b"\r\n", b"0\r\n\r\n"
LARGE = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 4194304\r\n\r\n" + b"x" * (4 << 20)
PIECES, GAP = 20, 0.02  # of a stream; seconds
FAULTS: dict[str, bytes | None] = {
    "fail": b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
    "stall": None,  # nothing is answered, for as long as the connection stands
    "reset": b"",
    "short": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nnot a hundred",
    "junk": b"HTTP/1.1 banana\r\n\r\n",
    "break": STREAM + PIECE,
}
_CLOSING = ("reset", "short", "junk", "break")  # after which the connection ends


class Upstream(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._timer: asyncio.Handle | None = None
        self._fault = ""
        self._target = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        del self._parser

    def on_url(self, url: bytes) -> None:
        self._target = url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-fault":
            self._fault = value.decode("latin-1")

    def on_message_complete(self) -> None:
        fault, self._fault = self._fault, ""
        if fault in FAULTS:
            self._misbehave(fault)
        elif b"/stream" in self._target:
            self._transport.write(STREAM)
            self._send(PIECES)
        else:
            self._transport.write(LARGE if b"/large" in self._target else OK)

    def _misbehave(self, fault: str) -> None:
        answer = FAULTS[fault]
        if answer:
            self._transport.write(answer)
        if fault in _CLOSING:
            self._transport.abort() if fault in ("reset", "break") else self._transport.close()

    def _send(self, left: int) -> None:
        self._transport.write(PIECE if left else LAST)
        self._timer = asyncio.get_running_loop().call_later(GAP, self._send, left - 1) if left else None


async def serve(ports: tuple[int, ...]) -> None:
    loop = asyncio.get_running_loop()
    for port in ports:
        await loop.create_server(partial(Upstream), "127.0.0.1", port, backlog=2048)
    await asyncio.Event().wait()


@click.command()
@click.option("--port", "ports", type=int, multiple=True, required=True)
def main(ports: tuple[int, ...]) -> None:
    """Answer until told to stop."""
    uvloop.run(serve(ports))


if __name__ == "__main__":
    main()
