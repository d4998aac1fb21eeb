"""Mixed clients for `soak`: usual ones, uploads, streams, requests whose upstream fails, and clients that leave.

Runs until SIGTERM, then prints as JSON how many of each kind ended how.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from urllib.parse import urlsplit

import click
import uvloop

from benchmarks.soak_upstream import FAULTS

USERS = 2_000
PATIENCE = 20.0  # seconds that an answer may take
FLIGHT = json.dumps(
    {"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 16], "data": [float(n) for n in range(16)]}]}
).encode()
WEIGHTS = {"usual": 60, "infer": 20, "upload": 4, "stream": 4, "fault": 6, "leave": 6}
LARGEST = 1 << 20  # bytes of an upload
_UPLOADED = b"x" * 65_536
_PAUSE = 0.02  # seconds between two requests of a client, on average


class Client:
    """One connection at a time, requests one after the other."""

    def __init__(self, host: str, port: int, seed: int, ends: Counter[str]) -> None:
        self._address = host, port
        self._random = random.Random(seed)
        self._ends = ends
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def run(self) -> None:
        kinds, weights = list(WEIGHTS), list(WEIGHTS.values())
        try:
            while True:
                (kind,) = self._random.choices(kinds, weights)
                act: Callable[[], Awaitable[str]] = getattr(self, f"_{kind}")
                self._ends[f"{kind}: {await self._ended(act)}"] += 1
                await asyncio.sleep(self._random.expovariate(1 / _PAUSE))
        finally:
            self._close(reset=False)

    async def _ended(self, act: Callable[[], Awaitable[str]]) -> str:
        try:
            async with asyncio.timeout(PATIENCE):
                return await act()
        except TimeoutError:
            self._close(reset=True)
            return "no answer"
        except (OSError, asyncio.IncompleteReadError, EOFError):
            self._close(reset=True)
            return "cut"

    async def _usual(self) -> str:
        return await self._asked(self._head("POST", "/score/rank", "content-length: 9") + b'{"q": 1}\n')

    async def _infer(self) -> str:
        target = "/v2/models/flight/infer"
        return await self._asked(self._head("POST", target, f"content-length: {len(FLIGHT)}") + FLIGHT)

    async def _stream(self) -> str:
        return await self._asked(self._head("GET", "/score/stream"))

    async def _fault(self) -> str:
        fault = self._random.choice(list(FAULTS))
        return f"{fault} {await self._asked(self._head('GET', '/score/rank', f'x-fault: {fault}'))}"

    async def _upload(self) -> str:
        size = self._random.randrange(LARGEST)
        writer = await self._connected()
        writer.write(self._head("POST", "/score/upload", f"content-length: {size}"))
        for start in range(0, size, len(_UPLOADED)):
            writer.write(_UPLOADED[: size - start])
            await writer.drain()
        return await self._answer()

    async def _leave(self) -> str:
        """Begin something on a connection of its own, and go at a random moment."""
        self._close(reset=False)
        whole = self._random.choice(
            [
                self._head("GET", "/score/stream"),
                self._head("GET", "/score/large"),  # which it does not read
                self._head("GET", "/score/rank", "x-fault: stall"),
                self._head("POST", "/score/upload", f"content-length: {LARGEST}") + _UPLOADED * 4,
                self._head("POST", "/v2/models/flight/infer", f"content-length: {len(FLIGHT)}") + FLIGHT,
            ]
        )
        part = self._random.randrange(1, len(whole) + 1) if self._random.random() < 0.3 else len(whole)
        narrow = socket.socket()
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # else the kernel takes the whole answer for us
        narrow.setblocking(False)
        await asyncio.get_running_loop().sock_connect(narrow, self._address)
        self._reader, self._writer = await asyncio.open_connection(sock=narrow)
        self._writer.write(whole[:part])
        # Some stay for a while: what lives longer than one collection of the young is looked at seldom.
        await asyncio.sleep(self._random.uniform(0, 8.0 if self._random.random() < 0.2 else 0.3))
        self._close(reset=self._random.random() < 0.5)
        return "left"

    async def _asked(self, request: bytes) -> str:
        (await self._connected()).write(request)
        return await self._answer()

    def _head(self, method: str, target: str, *lines: str) -> bytes:
        user = f"x-user-id: user-{self._random.randrange(USERS)}"
        return "\r\n".join([f"{method} {target} HTTP/1.1", "host: soak", user, *lines, "", ""]).encode()

    async def _connected(self) -> asyncio.StreamWriter:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(*self._address)
        return self._writer

    async def _answer(self) -> str:
        assert self._reader is not None
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        status = head.split(b" ", 2)[1].decode()
        _, declared, length = head.partition(b"\r\ncontent-length: ")
        if declared:
            await self._reader.readexactly(int(length.split(b"\r\n")[0]))
        elif b"transfer-encoding: chunked" in head:
            while size := int(await self._reader.readuntil(b"\r\n"), 16):
                await self._reader.readexactly(size + 2)
            await self._reader.readexactly(2)
        if b"\r\nconnection: close" in head:
            self._close(reset=False)
        return status

    def _close(self, *, reset: bool) -> None:
        writer, self._writer, self._reader = self._writer, None, None
        if writer is None:
            return
        if reset:
            with suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        else:
            writer.close()


async def load(url: str, clients: int, seed: int) -> Counter[str]:
    """Until SIGTERM; how many of each kind ended how."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    ends: Counter[str] = Counter()
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    tasks = [
        asyncio.create_task(Client(parts.hostname, parts.port, seed + number, ends).run()) for number in range(clients)
    ]
    for task in tasks:  # one that ends by itself has met a mistake of this program
        task.add_done_callback(lambda _: over.set())
    await over.wait()
    failed = [task.exception() for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if failed:
        raise RuntimeError("a client failed") from failed[0]
    return ends


@click.command()
@click.option("--url", required=True)
@click.option("--clients", default=24, show_default=True)
@click.option("--seed", default=1, show_default=True)
def main(url: str, clients: int, seed: int) -> None:
    """Send until told to stop."""
    click.echo(json.dumps(dict(sorted(uvloop.run(load(url, clients, seed)).items()))))


if __name__ == "__main__":
    main()
