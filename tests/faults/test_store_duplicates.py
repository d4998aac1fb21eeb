"""S12: the same outcome again and again, at the same time, by several workers: it counts once."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.node_config import ENDPOINT, METRIC, document
from benchmarks.nodes import Node, running, settled
from tests.integration.process.node import infer_body

pytestmark = pytest.mark.process
TIMES, CONNECTIONS = 1000, 50


def test_s12_an_outcome_that_a_thousand_requests_bring_at_once_is_stored_once(tmp_path: Path) -> None:
    node = Node(tmp_path / "node", document(outcomes={"durability": "disk"}))
    with running(node):
        statuses = asyncio.run(_post_again_and_again(node))
        assert statuses == [200] * TIMES, "whoever repeats an outcome must not think that it was refused"
        settled(lambda: _counted(node) >= TIMES - 1, "all of them were shipped")
        assert node.stop() == 0
    with closing(sqlite3.connect(node.database)) as db:
        assert db.execute("SELECT metric, value FROM outcome").fetchall() == [(METRIC, 0.25)]
    assert _counted(node) == TIMES - 1


async def _post_again_and_again(node: Node) -> list[int]:
    (head, _), *_ = await _all(node, f"/v2/models/{ENDPOINT}/infer", infer_body(), 1)
    token = head.split(b"x-gateway-decision: ")[1].split(b"\r\n")[0].decode()
    outcome = {"decision": token, "metric": METRIC, "value": 0.25, "id": "order-7"}
    turns = [TIMES // CONNECTIONS] * CONNECTIONS
    answers = await asyncio.gather(*(_all(node, "/v1/outcomes", outcome, turn) for turn in turns))
    return [status for each in answers for _, status in each]


async def _all(node: Node, path: str, document: object, times: int) -> list[tuple[bytes, int]]:
    """The same request so many times over one connection: heads and statuses."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    body = json.dumps(document).encode()
    found = []
    for _ in range(times):
        writer.write(f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        found.append((head, int(head[9:12])))
    writer.close()
    await writer.wait_closed()
    return found


def _counted(node: Node) -> int:
    with closing(sqlite3.connect(f"file:{node.database}?mode=ro", uri=True)) as db:
        (number,) = db.execute("SELECT coalesce(sum(value), 0) FROM counter WHERE name = 'duplicate'").fetchone()
    return int(number)
