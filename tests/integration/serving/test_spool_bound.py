"""Spools that have reached their bound: requests are answered and not recorded, outcomes are refused, and all of it
ends when there is room again."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from gateway.events import Assignment, Outcome
from gateway.spool.format import Position
from gateway.spool.keeping import Keeper
from gateway.spool.reader import StreamId, read
from gateway.store.base import StreamCursor
from tests.integration.serving.local_worker import LocalWorker, champion, endpoint, plan
from tests.integration.serving.test_outcome_intake import outcome, post, token

pytestmark = pytest.mark.anyio
BOUND = 16 << 20


@pytest.fixture
async def serving(worker: LocalWorker) -> LocalWorker:
    await worker.publish(plan(endpoint(champion()), max_spool=BOUND))
    return worker


def fill(worker: LocalWorker, size: int) -> Path:
    """What other workers have written."""
    path = worker.data_dir / "spool" / "00000001.requests.000000"
    with path.open("wb") as file:
        file.truncate(size)
    return path


def many(number: int, decision: int = 1) -> list[dict[str, Any]]:
    """Outcomes of about 200 bytes each."""
    return [outcome(id=f"{each:0128}") | {"decision": token(decision)} for each in range(number)]


def failures(worker: LocalWorker) -> tuple[int, int]:
    return worker.count("gateway_spool_failures", "requests"), worker.count("gateway_spool_failures", "outcomes")


async def test_beyond_the_bound_requests_are_answered_and_outcomes_are_not(
    serving: LocalWorker, caplog: pytest.LogCaptureFixture
) -> None:
    others = fill(serving, BOUND)
    await serving.worker.look()
    reply = await post(serving, outcome())
    assert (reply.status, "accepted" in reply.json) == (503, False)
    assert "send all of them again" in reply.error
    assert (await serving.infer("u")).status == 200
    assert failures(serving) == (2, 1)  # assignment and completion: promotions wait
    assert not serving.facts(Outcome)
    assert not serving.facts(Assignment)
    for _ in range(3):
        await serving.worker.look()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "spool.max_size is reached" in caplog.text
    others.unlink()
    await serving.worker.look()
    assert (await post(serving, outcome())).status == 200
    await serving.infer("u")
    assert failures(serving) == (2, 1)
    assert len(serving.facts(Assignment)) == 1
    assert "there is room again" in caplog.text


async def test_between_two_looks_a_worker_counts_what_it_writes(serving: LocalWorker) -> None:
    fill(serving, BOUND - 3000)
    await serving.worker.look()
    statuses = [(await post(serving, outcome())).status for _ in range(60)]
    assert 10 < statuses.count(200) < 60
    assert sorted(statuses) == statuses  # once it is full it stays so
    assert len(serving.facts(Outcome)) == statuses.count(200)


async def test_a_larger_bound_takes_effect_with_the_plan(serving: LocalWorker) -> None:
    fill(serving, BOUND)
    await serving.worker.look()
    assert (await post(serving, outcome())).status == 503
    await serving.publish(plan(endpoint(champion()), max_spool=2 * BOUND, revision=2))
    await serving.worker.look()
    assert (await post(serving, outcome())).status == 200


async def test_where_room_is_scarce_segments_end_early_so_that_they_can_be_deleted(serving: LocalWorker) -> None:
    """Else the living segments alone might fill the room, and none of them could go."""
    most = BOUND // 256
    fill(serving, BOUND // 2 + 1)
    assert (await post(serving, many(most // 150))).status == 200
    await serving.worker.look()
    assert sorted(path.name for path in (serving.data_dir / "spool").glob("00000007.*")) == [
        "00000007.outcomes.000000",
        "00000007.outcomes.000001",
        "00000007.requests.000000",
    ]


async def test_room_comes_back_when_what_is_shipped_is_deleted(serving: LocalWorker) -> None:
    """The whole round: full of what is shipped already, tidied by the control process, taken again."""
    folder, mine = serving.data_dir / "spool", StreamId(7, "outcomes")
    decision = 1
    while (reply := await post(serving, many(3000, decision))).status == 200:
        await serving.worker.poll()
        decision += 1
    assert reply.status == 503
    position, facts = Position(), 0
    while (batch := read(folder, mine, position)).position != position:
        position, facts = batch.position, facts + len(batch.facts)
    assert facts > 10_000
    keeper = Keeper(folder, serving.clock, 86400.0, BOUND)
    assert keeper.tidy({}).deleted == []
    tidied = keeper.tidy({mine: StreamCursor(position)})
    assert tidied.deleted
    assert tidied.bytes <= 0.75 * BOUND + (BOUND >> 4)
    await serving.worker.look()
    assert (await post(serving, outcome(id="after"))).status == 200
    # Whoever reads on from the cursor misses nothing and is told of nothing.
    batch = read(folder, mine, position)
    assert batch.corrupt == ""
    assert [fact.id for fact in batch.facts if isinstance(fact, Outcome)] == ["after"]
