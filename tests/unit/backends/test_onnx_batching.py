"""Requests that wait for a model share its next run, and none of them can tell."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from gateway.backends.onnx import OnnxModel, Tensors, batching, load
from gateway.errors import BackendError, BackendTimeout, BadOutput
from tests.unit.backends import tiny_onnx
from tests.unit.backends.models import FLIGHT_DELAY, Build, begun, row, unload, within

pytestmark = pytest.mark.anyio

HANGS, RAISES, NO_NUMBER = 2000.0, -20.0, -5.0  # what a row of the moody model does


async def together(model: OnnxModel, values: Sequence[float], seconds: float = 5.0) -> list[object]:
    """The answers, or failures, of requests that all waited while the model was busy."""
    busy = await begun(model, HANGS)
    calls = [asyncio.ensure_future(model.infer(row(value), within(seconds))) for value in values]
    await asyncio.sleep(0)
    busy.cancel()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    return [answer if isinstance(answer, BaseException) else float(answer[0][0, 0]) for answer in answers]


def logarithms(values: Sequence[float]) -> list[object]:
    return [pytest.approx(math.log(value + 2), rel=1e-6) for value in values]


async def test_all_that_waits_is_one_run(build: Build) -> None:
    model = build(tiny_onnx.moody)
    values = [float(n) for n in range(50)]
    assert await together(model, values) == logarithms(values)
    assert model.runs == 2  # the one that kept the model busy, and the one of all


async def test_who_finds_the_model_idle_is_run_at_once_and_alone(build: Build) -> None:
    model = build(tiny_onnx.moody)
    for value in range(5):
        await model.infer(row(value), within())
    assert model.runs == 5


@pytest.mark.parametrize(("max_batch", "runs"), [(4, 3), (10, 1), (1, 10)])
async def test_a_run_has_at_most_so_many_rows(build: Build, max_batch: int, runs: int) -> None:
    model = build(tiny_onnx.moody, max_batch=max_batch)
    values = [float(n) for n in range(10)]
    assert await together(model, values) == logarithms(values)
    assert model.runs == 1 + runs


async def test_large_requests_do_without_company(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "SHARED", 3 * tiny_onnx.FEATURES)
    model = build(tiny_onnx.moody)
    values = [float(n) for n in range(9)]
    assert await together(model, values) == logarithms(values)
    assert model.runs == 1 + 3


async def test_each_gets_the_rows_that_it_sent(build: Build) -> None:
    model = build(tiny_onnx.moody, max_batch=8)
    busy = await begun(model, HANGS)
    sizes = [1, 3, 2, 20, 1]  # 20 are more than a run may have together: such a request is run alone
    calls = [asyncio.ensure_future(model.infer(row(n, rows=size), within())) for n, size in enumerate(sizes)]
    await asyncio.sleep(0)
    busy.cancel()
    for n, (size, (values,)) in enumerate(zip(sizes, await asyncio.gather(*calls), strict=True)):
        np.testing.assert_allclose(values, np.full((size, 1), math.log(n + 2)), rtol=1e-6)
    assert model.runs == 1 + 3


async def test_a_row_on_which_the_model_raises_fails_alone(build: Build) -> None:
    model = build(tiny_onnx.moody)
    *answers, failure = await together(model, [1.0, 2.0, 3.0, RAISES])
    assert answers == logarithms([1.0, 2.0, 3.0])
    assert type(failure) is BackendError
    assert "the model raised" in str(failure)
    assert model.runs == 1 + 1 + 4  # together, then each alone, once


async def test_a_row_without_a_finite_answer_fails_alone(build: Build) -> None:
    model = build(tiny_onnx.moody)
    failure, *answers = await together(model, [NO_NUMBER, 1.0, 2.0])
    assert answers == logarithms([1.0, 2.0])
    assert isinstance(failure, BadOutput)
    assert model.runs == 1 + 1 + 1  # only the culprit is asked again


async def test_tensors_of_another_kind_never_share_a_run(build: Build) -> None:
    model = build(tiny_onnx.moody)
    busy = await begun(model, HANGS)
    narrow, double = np.zeros((1, 3), np.float32), np.zeros((1, 16), np.float64)
    wrong: list[Tensors] = [{"features": narrow}, {"features": double}, {"other": narrow}, {}]
    calls = [asyncio.ensure_future(model.infer(inputs, within())) for inputs in (row(1.0), *wrong, row(2.0))]
    await asyncio.sleep(0)
    busy.cancel()
    await asyncio.wait(calls)
    first, *failed, last = calls
    assert [type(call.exception()) for call in failed] == [BackendError] * 4
    assert [float(call.result()[0][0, 0]) for call in (first, last)] == logarithms([1.0, 2.0])


async def test_who_shares_a_run_with_a_hang_keeps_a_deadline_of_its_own(build: Build) -> None:
    model = build(tiny_onnx.moody)
    busy = await begun(model, HANGS)
    late = asyncio.ensure_future(model.infer(row(HANGS), within(0.4)))
    early = asyncio.ensure_future(model.infer(row(1.0), within(0.1)))
    await asyncio.sleep(0)
    busy.cancel()
    with pytest.raises(BackendTimeout):
        await early
    assert not late.done()
    assert model._runner._running is not None  # for the sake of who still waits
    with pytest.raises(BackendTimeout):
        await late
    assert await model.infer(row(1.0), within())


async def test_a_run_that_everybody_left_is_stopped(build: Build) -> None:
    model = build(tiny_onnx.moody)
    busy = await begun(model, HANGS)
    calls = [asyncio.ensure_future(model.infer(row(HANGS), within(60))) for _ in range(3)]
    await asyncio.sleep(0)
    busy.cancel()
    while model.waiting or model.runs < 2:
        await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    assert await model.infer(row(1.0), within())
    assert model.runs == 3


async def test_who_left_before_the_run_is_not_run(build: Build) -> None:
    model = build(tiny_onnx.moody)
    busy = await begun(model, HANGS)
    left = [asyncio.ensure_future(model.infer(row(HANGS), within(60))) for _ in range(3)]
    stays = asyncio.ensure_future(model.infer(row(1.0), within()))
    await asyncio.sleep(0)
    for call in left:
        call.cancel()
    busy.cancel()
    assert await stays
    assert model.runs == 2


async def test_a_model_that_looks_at_its_neighbours_is_not_batched(
    build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "gateway.backends.onnx"):
        model = build(tiny_onnx.neighbourly)
    assert "neighbourly.onnx: requests are run one by one: a row's answer depends on the rows beside it" in caplog.text
    answers = await asyncio.gather(*(model.infer(row(float(n)), within()) for n in range(20)))
    assert [float(values[0, 0]) for (values,) in answers] == [0.0] * 20
    assert model.runs == 20


async def test_a_model_for_exactly_one_row_is_not_batched(build: Build) -> None:
    model = build(tiny_onnx.one_row)
    answers = await asyncio.gather(*(model.infer(row(float(n)), within()) for n in range(20)))
    assert [float(values[0, 0]) for (values,) in answers] == list(range(20))


@pytest.mark.parametrize("name", ["logistic", "boosted", "broken", "twin"])
async def test_real_models_answer_together_what_they_answer_alone(name: str) -> None:
    path = FLIGHT_DELAY / f"{name}.onnx"
    batched, alone = load(path, ""), load(path, "", max_batch=1)
    rows = [{"features": rows} for rows in np.random.default_rng(5).normal(0, 10, (64, 1, 16)).astype(np.float32)]
    answers = [await asyncio.gather(*(model.infer(one, within()) for one in rows)) for model in (batched, alone)]
    np.testing.assert_allclose(np.array(answers[0]), np.array(answers[1]), rtol=1e-6)
    assert batched.runs < alone.runs == 64
    unload(batched)
    unload(alone)


async def test_threads_of_its_own_change_no_answer(tmp_path: Path) -> None:
    model = load(tiny_onnx.largest(tmp_path / "m.onnx"), "", threads=2)
    (values,) = await model.infer(row(3.0, rows=500), within())
    assert values.tolist() == [[3.0]] * 500
    unload(model)
