"""Outcomes at the level `disk`: acknowledged when the disk has them, or not at all."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from typing import Any

import pytest

from gateway.events import Outcome
from gateway.plan import OutcomesPlan
from tests.integration.serving.local_worker import LocalWorker, champion, endpoint, plan
from tests.integration.serving.test_outcome_intake import outcome, post, token

pytestmark = pytest.mark.anyio


@pytest.fixture
async def serving(worker: LocalWorker) -> LocalWorker:
    await worker.publish(plan(endpoint(champion()), outcomes=OutcomesPlan(durability="disk")))
    return worker


def syncs(worker: LocalWorker, result: str) -> int:
    buckets: tuple[int, ...] = worker.page().series.get(("gateway_spool_sync_duration_seconds", (result,)), (0,))
    return sum(buckets[:-1])


async def test_the_answer_names_the_level_that_was_reached(serving: LocalWorker) -> None:
    reply = await post(serving, outcome())
    assert (reply.status, reply.json) == (200, {"accepted": 1, "durability": "disk"})
    assert (await post(serving, [outcome(), outcome()])).json == {"accepted": 2, "durability": "disk"}
    assert syncs(serving, "ok") == 2
    await serving.publish(plan(endpoint(champion()), revision=2))
    assert (await post(serving, outcome())).json["durability"] == "process"
    assert syncs(serving, "ok") == 2


async def test_requests_that_come_together_share_their_syncs(serving: LocalWorker) -> None:
    replies = await asyncio.gather(*(post(serving, outcome(id=str(number))) for number in range(200)))
    assert {reply.status for reply in replies} == {200}
    assert len(serving.facts(Outcome)) == 200
    assert syncs(serving, "ok") <= 10


async def test_inference_goes_on_while_the_disk_is_slow(serving: LocalWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    def slow(_: int) -> None:
        assert go.wait(10)

    monkeypatch.setattr(os, "fdatasync", slow)
    waiting = asyncio.get_running_loop().create_task(post(serving, outcome()))
    for _ in range(5):
        assert (await serving.infer("u")).status == 200
    assert not waiting.done()
    go.set()
    assert (await waiting).status == 200


@pytest.mark.parametrize("document", [outcome(), [outcome(), outcome(2)]])
async def test_what_the_disk_did_not_take_is_not_acknowledged(
    serving: LocalWorker, monkeypatch: pytest.MonkeyPatch, document: Any
) -> None:
    def fails(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fails)
        reply = await post(serving, document)
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert "send all of them again" in reply.error
    assert serving.count("gateway_spool_failures", "outcomes") == 1
    assert serving.count("gateway_outcomes", "flight", "brier", "accepted") == 0
    assert syncs(serving, "error") == 1
    assert (await post(serving, outcome())).status == 200
    names = sorted(path.name for path in (serving.data_dir / "spool").glob("*.outcomes.*"))
    assert names == ["00000007.outcomes.000000", "00000007.outcomes.000001"]


async def test_of_those_who_wait_for_one_disk_there_are_only_so_many(
    serving: LocalWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    monkeypatch.setattr(os, "fdatasync", lambda _: go.wait(10))
    tasks = [asyncio.get_running_loop().create_task(post(serving, outcome(id=str(n)))) for n in range(600)]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    go.set()
    statuses = [(await task).status for task in tasks]
    assert statuses.count(200) in (512, 513)  # one may be in the sync that is under way
    assert statuses.count(503) == 600 - statuses.count(200)
    kept = {fact.id for fact in serving.facts(Outcome)}
    assert len(kept) == statuses.count(200)  # whoever was turned away left nothing


async def test_nothing_is_synced_where_nothing_was_kept(serving: LocalWorker) -> None:
    assert (await post(serving, outcome() | {"decision": token()[:-1]})).status == 403
    assert syncs(serving, "ok") == 0


async def test_what_is_on_the_disk_is_what_was_acknowledged(serving: LocalWorker) -> None:
    body = b"\n".join(json.dumps(outcome(id=str(number))).encode() for number in range(1000))
    reply = await post(serving, body, [("content-type", "application/x-ndjson")])
    assert reply.json == {"accepted": 1000, "durability": "disk"}
    assert [fact.id for fact in serving.facts(Outcome)] == [str(number) for number in range(1000)]
