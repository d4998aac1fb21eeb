"""The control plane forgets beside its rounds: who asks at the admin port, and what the config says of days."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.admin.app import admin_app
from gateway.assignment.hashing import bucket, salt_key, unit_digest
from gateway.assignment.ranges import owner
from gateway.clock import FakeClock
from gateway.config.load import load
from gateway.control_plane import ControlPlane
from gateway.events import Assignment, Completion, decision_id
from gateway.spool.writer import SpoolWriter
from tests.unit.release.configs import experiment, write

HOUR = 3600.0


@dataclass
class Node:
    """A control plane, and one worker's spool."""

    folder: Path
    clock: FakeClock = field(default_factory=FakeClock)
    requests: int = 0

    def __post_init__(self) -> None:
        self.path = write(self.folder, rank=experiment())
        self.plane = ControlPlane(load(self.path), self.clock)
        self.spool = SpoolWriter(self.folder / "data" / "spool", 1, "requests", b"i" * 16, self.clock)

    def close(self) -> None:
        self.spool.close()
        self.plane.close()

    @property
    def store(self) -> Any:
        return self.plane.store

    def request(self, unit: str) -> None:
        """As a worker would write it down."""
        self.requests += 1
        plan = self.plane.controller.plan
        assert plan is not None
        [endpoint] = plan.endpoints
        point = bucket(salt_key("one"), unit.encode())
        digest, at = unit_digest(bytes.fromhex(plan.pepper), unit.encode()), self.spool.now()
        variant = owner(endpoint.slots, point)
        about = ("rank", "one", endpoint.stage, variant, 0.5, point, digest, (), plan.revision)
        self.spool.append(Assignment(decision_id(1, self.requests), at, *about))
        self.spool.append(Completion(decision_id(1, self.requests), at, variant, "answered", 200, 1, 1))

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.spool.heartbeat()
        self.plane.poll()

    def count(self, table: str) -> int:
        number: int = self.store.row(f"SELECT count(*) FROM {table}")[0]
        return number

    def post(self, path: str, body: Any) -> httpx.Response:
        """To the admin port."""

        async def sent() -> httpx.Response:
            transport = httpx.ASGITransport(admin_app(Port(self.plane)))
            async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
                return await client.post(path, json=body)

        return asyncio.run(sent())


class Port:
    """The control process as its ports see it, but on this thread."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} is not asked for here")

    async def erase(self, unit: str, endpoint: str, actor: str, text: str) -> dict[str, Any]:
        asked = self._plane.erase(unit, endpoint, actor, text)
        return {"complete_at_us": asked.until, "text": asked.text}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.close()


def test_a_unit_is_erased_as_its_requests_have_it(node: Node) -> None:
    for unit in ("ada", "eve", "ada"):
        node.request(unit)
    node.pass_time(1.0)
    assert (node.count("assignment"), node.count("unit"), node.count("vote")) == (3, 2, 2)
    answer = node.post("/api/erasures", {"unit": "ada", "actor": "me", "reason": "by mail"})
    assert answer.status_code == 202
    # A spool's file ends within an hour, and stays for a day; ten minutes more are for its end to be read.
    until = node.clock.wall_us() + round((HOUR + 24 * HOUR + 600.0) * 1e6)
    assert answer.json()["complete_at_us"] == until
    assert "complete by 2023-11-15T23:" in answer.json()["text"]
    assert answer.json()["text"].endswith(", unless a node is away: then as long after its return (by mail)")
    for _ in range(5):
        node.pass_time(0.1)
    assert (node.count("assignment"), node.count("completion"), node.count("unit")) == (1, 1, 1)
    assert node.store.rows("SELECT count(*) FROM vote WHERE decision = 0") == [(1,)]
    node.request("ada")  # a stranger
    node.pass_time(1.0)
    assert node.count("vote") == 3
    assert [row.kind for row in node.store.ledger()] == ["start", "erase", "erase"]
    assert node.store.ledger()[1].body["actor"] == "me"
    node.pass_time(26 * HOUR)
    assert node.count("erasure") == node.count("erased") == 0


def test_what_makes_no_sense_is_refused(node: Node) -> None:
    for body in ({}, {"unit": ""}, {"unit": 7}, {"unit": None}):
        answer = node.post("/api/erasures", body)
        assert (answer.status_code, answer.json()["detail"]) == (400, "expected `unit`, as requests give it")
    answer = node.post("/api/erasures", {"unit": "ada", "endpoint": "nowhere"})
    assert (answer.status_code, answer.json()["detail"]) == (404, "there is no endpoint 'nowhere'")
    assert node.count("erasure") == 0


def test_requests_go_when_the_config_says_so(node: Node) -> None:
    node.request("ada")
    node.pass_time(1.0)
    node.pass_time(6 * 24 * HOUR)
    assert node.count("assignment") == 1
    assert node.plane.forgetting.retention.keep_seconds == 7 * 24 * HOUR
    text = node.path.read_text()
    node.path.write_text(text + "retention: {requests: 2d}\n")
    assert node.plane.reload().problems == []
    for _ in range(100):
        node.pass_time(1.0)
    assert node.count("assignment") == node.count("completion") == 0
    assert node.plane.forgetting.retention.dropped == 1
    assert (node.count("vote"), node.count("unit")) == (1, 1)
