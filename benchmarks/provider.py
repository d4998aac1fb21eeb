"""A small fast provider of streamed chat completions, to stand behind gateways: so many chunks at a fixed gap.

The first chunk leaves at once; the others follow one by one, each in a write of its own.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from functools import partial
from typing import cast

import click
import httptools
import uvloop

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"data: [DONE]\n\n"


def events(model: str, chunks: int) -> list[bytes]:
    """The stream of one completion: that many chunks and the closing mark, framed for the wire."""
    made = []
    for n in range(chunks):
        last = n == chunks - 1
        choice = {
            "index": 0,
            "delta": {} if last else {"content": f" word{n}"},
            "finish_reason": "stop" if last else None,
        }
        chunk = {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": model,
            "choices": [choice],
        }
        made.append(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    return [b"%x\r\n%b\r\n" % (len(event), event) for event in [*made, END]]


class Provider(asyncio.Protocol):
    """One connection; requests on it are answered in turn, whatever they ask."""

    def __init__(self, stream: list[bytes], gap: float) -> None:
        self._stream = stream
        self._gap = gap
        self._parser = httptools.HttpRequestParser(self)
        self._timer: asyncio.Handle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def on_message_complete(self) -> None:
        self._transport.write(HEAD + self._stream[0])
        self._later(1)

    def _send(self, n: int) -> None:
        self._transport.write(self._stream[n])
        if n + 1 < len(self._stream):
            self._later(n + 1)
        else:
            self._transport.write(b"0\r\n\r\n")
            self._timer = None

    def _later(self, n: int) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._gap, self._send, n)


async def serve(ports: tuple[int, ...], chunks: int, gap: float) -> None:
    """Stream from both ports until cancelled."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as servers:
        for name, port in zip("ab", ports, strict=True):
            made = partial(Provider, events(f"gpt-{name}", chunks), gap)
            await servers.enter_async_context(await loop.create_server(made, "127.0.0.1", port, backlog=2048))
        await asyncio.Event().wait()


@click.command()
@click.option("--port", "ports", type=int, multiple=True, required=True, help="Of a, then of b.")
@click.option("--chunks", default=100, show_default=True)
@click.option("--gap", default=0.005, show_default=True, help="Seconds between two chunks.")
def main(ports: tuple[int, ...], chunks: int, gap: float) -> None:
    """Stream completions until told to stop."""
    uvloop.run(serve(ports, chunks, gap))


if __name__ == "__main__":
    main()
