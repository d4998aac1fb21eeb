"""A usual client: requests at a steady rate over kept-alive connections, whatever has become of those before."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import uvloop

from benchmarks.processes import LOAD_CORE

PATIENCE = 10.0  # seconds
Idle = deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]]  # connections that wait for a request


@dataclass(slots=True)
class Seen:
    """Latencies from when each request was due: one that had to wait for its turn has waited."""

    latencies: list[tuple[float, float]] = field(default_factory=list)  # (seconds from the start, milliseconds)
    failed: int = 0

    def between(self, start: float, end: float) -> list[float]:
        """Milliseconds of the requests that were due then."""
        return [took for due, took in self.latencies if start <= due < end]


def post(path: str, user: str, body: bytes) -> bytes:
    """A request as it is sent."""
    fields = f"host: gateway\r\nx-user-id: {user}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return f"POST {path} HTTP/1.1\r\n{fields}\r\n\r\n".encode() + body


def send_steadily(url: str, requests: Sequence[bytes], rate: float, seconds: float) -> Seen:
    """The requests in turn, on the load's core, in this process."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {LOAD_CORE})
    try:
        return uvloop.run(_send(url, requests, rate, seconds))
    finally:
        os.sched_setaffinity(0, before)


async def _send(url: str, requests: Sequence[bytes], rate: float, seconds: float) -> Seen:
    parts = urlsplit(url)
    assert parts.port
    seen = Seen()
    idle: Idle = deque()
    began = time.perf_counter()
    asked: list[asyncio.Task[None]] = []
    for number in range(int(rate * seconds)):
        due = began + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        request = requests[number % len(requests)]
        asked.append(asyncio.create_task(_ask(seen, idle, parts.port, request, due - began, due)))
    await asyncio.gather(*asked)
    for _, writer in idle:
        writer.close()
    return seen


async def _ask(seen: Seen, idle: Idle, port: int, request: bytes, at: float, due: float) -> None:
    ok = False
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = head.partition(b"\r\ncontent-length: ")[2].split(b"\r\n")[0]
            await reader.readexactly(int(length or b"0"))
            ok = head.startswith(b"http/1.1 200")
            idle.append((reader, writer))
    except (OSError, TimeoutError, EOFError):
        pass
    seen.failed += not ok
    seen.latencies.append((at, (time.perf_counter() - due) * 1e3))
