"""Load of streamed answers, which `wrk` cannot read: event streams over kept-alive connections, first chunks timed.

Prints one line of JSON: streams, chunks, seconds, first_p50_us, first_p99_us, broken (streams that were not whole).
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from dataclasses import dataclass, field
from functools import partial
from typing import cast
from urllib.parse import urlsplit

import click
import httptools
import uvloop

_DONE = b"data: [DONE]\n\n"


@dataclass(slots=True)
class Seen:
    """What all connections saw."""

    until: float  # monotonic seconds after which no stream is begun
    streams: int = 0
    chunks: int = 0
    broken: int = 0
    first_us: list[float] = field(default_factory=list)

    def line(self, seconds: float) -> str:
        ordered = sorted(self.first_us) or [0.0]
        told = {
            "streams": self.streams,
            "chunks": self.chunks,
            "seconds": seconds,
            "first_p50_us": statistics.median(ordered),
            "first_p99_us": ordered[int(0.99 * (len(ordered) - 1))],
            "broken": self.broken,
        }
        return json.dumps(told)


class Reader(asyncio.Protocol):
    """One connection: asks, reads the stream to its end, asks again."""

    def __init__(self, request: bytes, chunks: int, seen: Seen) -> None:
        self._request = request
        self._expected = chunks
        self._seen = seen
        self._body = bytearray()
        self._asked = 0.0
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._asked:  # in the middle of a stream
            self._seen.broken += 1
        self.closed.set_result(None)

    def on_body(self, body: bytes) -> None:
        if not self._body:
            self._seen.first_us.append((time.perf_counter() - self._asked) * 1e6)
        self._body += body

    def on_message_complete(self) -> None:
        chunks = self._body.count(b"\n\n") - 1
        whole = self._parser.get_status_code() == 200 and self._body.endswith(_DONE) and chunks == self._expected
        self._seen.streams += 1
        self._seen.chunks += chunks
        self._seen.broken += not whole
        if time.monotonic() < self._seen.until:
            # The parser is still in its callback, and the answer's connection is free only after it.
            asyncio.get_running_loop().call_soon(self._ask)
        else:
            self._asked = 0.0
            self._transport.close()

    def _ask(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._body.clear()
        self._asked = time.perf_counter()
        self._transport.write(self._request)


async def load(url: str, body: bytes, connections: int, seconds: float, chunks: int) -> str:
    parts = urlsplit(url)
    head = f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
    begin = time.monotonic()
    seen = Seen(begin + seconds)
    loop = asyncio.get_running_loop()
    readers = []
    for number in range(connections):
        own = f"{head}x-user-id: user-{number}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        made = partial(Reader, own + body, chunks, seen)
        readers.append((await loop.create_connection(made, parts.hostname or "", parts.port or 80))[1])
    await asyncio.gather(*[reader.closed for reader in readers])
    return seen.line(time.monotonic() - begin)


@click.command()
@click.argument("url")
@click.option("--body", required=True)
@click.option("--connections", default=32, show_default=True)
@click.option("--seconds", default=4.0, show_default=True)
@click.option("--chunks", default=100, show_default=True, help="That a whole stream has, its closing mark apart.")
def main(url: str, body: str, connections: int, seconds: float, chunks: int) -> None:
    """Read streams from URL until the time is over."""
    click.echo(uvloop.run(load(url, body.encode(), connections, seconds, chunks)))


if __name__ == "__main__":
    main()
