"""Small models run on the loop's own thread, as long as they are quick; nobody waits long for one that is not."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from gateway.backends.onnx import load, runner, warm_up
from gateway.errors import BackendTimeout
from tests.unit.backends import tiny_onnx
from tests.unit.backends.models import FLIGHT_DELAY, Build, row, unload, within

pytestmark = pytest.mark.anyio

HANGS = 2000.0  # on a row with this the moody model does


async def test_a_small_model_answers_before_the_loop_has_turned_twice(build: Build) -> None:
    model = build(tiny_onnx.largest)
    assert model.on_loop
    calls = [asyncio.ensure_future(model.infer(row(float(n)), within())) for n in range(20)]
    await asyncio.sleep(0)  # they have asked
    await asyncio.sleep(0)  # and the model has run
    assert model.runs == 1
    assert not model.waiting
    answers = await asyncio.gather(*calls)
    assert [float(values[0, 0]) for (values,) in answers] == list(range(20))


async def test_a_hang_is_stopped_within_milliseconds_and_its_model_leaves_the_loop(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "HELD", 60.0)
    model = build(tiny_onnx.moody)
    assert model.on_loop
    call = asyncio.ensure_future(model.infer(row(HANGS), within(0.5)))
    await asyncio.sleep(0)
    before = time.thread_time()
    await asyncio.sleep(0)
    assert time.thread_time() - before < 0.02
    assert not model.on_loop
    assert not call.done()  # it goes on beside the loop, until its own deadline
    with pytest.raises(BackendTimeout):
        await call
    assert await model.infer(row(0.0), within())
    assert model.runs == 2  # the one that was stopped counts for nobody


async def test_who_waits_with_a_hang_is_answered_all_the_same(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "HELD", 60.0)
    model = build(tiny_onnx.moody, max_batch=1)
    assert model.on_loop
    values = [-1.0, HANGS, 1.0]
    first, hang, last = [asyncio.ensure_future(model.infer(row(value), within(0.3))) for value in values]
    assert (await first)[0].tolist() == [[0.0]]
    with pytest.raises(BackendTimeout):
        await hang
    with pytest.raises(BackendTimeout):
        await last  # behind the hang, on the thread of both
    assert not model.on_loop


async def test_a_request_with_many_rows_goes_to_the_thread(build: Build) -> None:
    model = build(tiny_onnx.largest)
    call = asyncio.ensure_future(model.infer(row(1.0, rows=20_000), within()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not call.done()
    assert len((await call)[0]) == 20_000
    assert model.on_loop


async def test_runs_hold_the_loop_for_so_long_in_one_turn(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "HELD", 0.0)
    model = build(tiny_onnx.largest)
    call = asyncio.ensure_future(model.infer(row(1.0), within()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert model.on_loop
    assert (await call)[0].tolist() == [[1.0]]


def test_a_model_that_takes_long_is_never_on_the_loop(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_up, "QUICK", 0.0)
    assert not build(tiny_onnx.largest).on_loop


def test_a_model_with_threads_of_its_own_or_another_free_dimension_is_never_on_the_loop(build: Build) -> None:
    assert not build(tiny_onnx.largest, threads=2).on_loop
    assert not build(tiny_onnx.echo).on_loop  # texts may be of any length


@pytest.mark.parametrize("name", ["logistic", "boosted"])
async def test_real_models_are_small_and_answer_the_same_on_either_thread(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = FLIGHT_DELAY / f"{name}.onnx"
    here = load(path, "")
    monkeypatch.setattr(warm_up, "QUICK", 0.0)
    beside = load(path, "")
    assert (here.on_loop, beside.on_loop) == (True, False)
    inputs = {"features": np.random.default_rng(3).normal(0, 10, (4, 16)).astype(np.float32)}
    answers = [(await model.infer(inputs, within()))[0] for model in (here, beside)]
    np.testing.assert_array_equal(answers[0], answers[1])
    unload(here)
    unload(beside)


async def test_no_thread_is_left_when_a_watched_model_is_unloaded(tmp_path: Path) -> None:
    before = threading.active_count()
    model = load(tiny_onnx.largest(tmp_path / "m.onnx"), "")
    assert await model.infer(row(1.0), within())
    unload(model)
    assert threading.active_count() == before
