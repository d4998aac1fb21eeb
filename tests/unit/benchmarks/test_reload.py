"""The load beside which a config is changed: what it does not get is counted, and it may not end before it is told."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from benchmarks.bench_reload import Load, beside
from benchmarks.processes import BenchmarkError, free_port


def test_requests_that_are_refused_have_failed_and_the_load_goes_on() -> None:
    load = Load(free_port(), 2_000, {})

    async def until_some_failed() -> None:
        traffic = asyncio.create_task(load.run())
        async with asyncio.timeout(10):
            while len(load.failed) < 50 and not traffic.done():
                await asyncio.sleep(0.001)
        assert not traffic.done()
        traffic.cancel()
        await asyncio.wait([traffic])

    asyncio.run(until_some_failed())
    assert load.answers == []
    assert all(failure.startswith("ConnectionRefusedError") for failure in load.failed)


def changes_beside(load: Coroutine[Any, Any, Any], planned: int) -> list[int]:
    done: list[int] = []
    asyncio.run(beside(load, done.append, planned))
    return done


def test_changes_are_made_while_the_load_goes_on() -> None:
    assert changes_beside(asyncio.sleep(60), 3) == [0, 1, 2]


async def broken() -> None:
    raise ValueError("no such answer")


@pytest.mark.parametrize(("load", "why"), [(broken, "no such answer"), (lambda: asyncio.sleep(0), "None")])
def test_a_load_that_has_ended_proves_nothing(load: Any, why: str) -> None:
    with pytest.raises(BenchmarkError, match=f"the load has ended: .*{why}"):
        changes_beside(load(), 3)
