"""The load beside which a config is changed: what it does not get is counted, and it may not end before it is told."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from benchmarks.bench_reload import Load, beside
from benchmarks.processes import BenchmarkError, free_port


class Counted(list[str]):
    """Failures, and whether there are fifty."""

    def __init__(self) -> None:
        super().__init__()
        self.enough = asyncio.Event()

    def append(self, failure: str) -> None:
        super().append(failure)
        if len(self) >= 50:
            self.enough.set()


def test_requests_that_are_refused_have_failed_and_the_load_goes_on() -> None:
    failed = Counted()
    load = Load(free_port(), 2_000, {}, failed=failed)

    async def until_some_failed() -> None:
        traffic = asyncio.create_task(load.run())
        async with asyncio.timeout(10):
            await failed.enough.wait()
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
    assert changes_beside(endless(), 3) == [0, 1, 2]


async def endless() -> None:
    await asyncio.Event().wait()


async def short() -> None:
    pass


async def broken() -> None:
    raise ValueError("no such answer")


@pytest.mark.parametrize(("load", "why"), [(broken, "no such answer"), (short, "None")])
def test_a_load_that_has_ended_proves_nothing(load: Any, why: str) -> None:
    with pytest.raises(BenchmarkError, match=f"the load has ended: .*{why}"):
        changes_beside(load(), 3)
