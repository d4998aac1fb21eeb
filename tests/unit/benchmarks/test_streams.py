"""The provider of streams and the load that reads them, against each other over loopback."""

import asyncio
import json
from typing import Any

from benchmarks.processes import free_port
from benchmarks.provider import serve
from benchmarks.streams import load


def read(sent: int, expected: int) -> dict[str, Any]:
    """What the load says about streams of `sent` chunks of which it expects `expected`."""

    async def both() -> str:
        ports = free_port(), free_port()
        serving = asyncio.create_task(serve(ports, sent, gap=0.0))
        while not await _listens(ports[1]):
            await asyncio.sleep(0)
        try:
            return await load(f"http://127.0.0.1:{ports[1]}/v1/chat/completions", b"{}", 4, 0.05, expected)
        finally:
            serving.cancel()
            await asyncio.wait([serving])

    told: dict[str, Any] = json.loads(asyncio.run(both()))
    return told


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return False
    writer.close()
    return True


def test_every_chunk_of_every_stream_is_counted_and_the_first_is_timed() -> None:
    told = read(sent=7, expected=7)
    assert told["streams"] >= 4
    assert told["chunks"] == 7 * told["streams"]
    assert told["broken"] == 0
    assert 0 < told["first_p50_us"] <= told["first_p99_us"]


def test_a_stream_that_lost_a_chunk_is_broken() -> None:
    told = read(sent=6, expected=7)
    assert told["broken"] == told["streams"] > 0
