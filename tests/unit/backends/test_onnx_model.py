"""A model in the process: it answers, or fails in a way that is counted, and never holds up anybody else."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from gateway.backends.onnx import ModelError, artifacts, digest, inspect, load, runner, too_large, warm_up
from gateway.backends.onnx import model as onnx_model
from gateway.errors import BackendError, BackendTimeout, BackendUnavailable, BadOutput
from gateway.memory import resident
from tests.unit.backends import tiny_onnx
from tests.unit.backends.models import FLIGHT_DELAY, Build, begun, row, unload, within


@pytest.mark.anyio
async def test_outputs_come_in_the_order_of_the_signature(build: Build) -> None:
    model = build(tiny_onnx.largest)
    (values,) = await model.infer(row(3.0, rows=2), within())
    assert values.tolist() == [[3.0], [3.0]]


@pytest.mark.anyio
async def test_answers_belong_to_their_requests(build: Build) -> None:
    model = build(tiny_onnx.largest)
    answers = await asyncio.gather(*(model.infer(row(float(n)), within()) for n in range(200)))
    assert [float(values[0][0]) for (values,) in answers] == list(range(200))


@pytest.mark.anyio
@pytest.mark.parametrize("value", [0.0, -1.0])
async def test_output_that_is_no_number_is_a_bad_output(build: Build, value: float) -> None:
    with pytest.raises(BadOutput, match="'probability' of the model is not finite"):
        await build(tiny_onnx.logarithm).infer(row(value), within())


@pytest.mark.anyio
async def test_a_model_that_raises_is_told_in_one_line() -> None:
    model = load(FLIGHT_DELAY / "crashing.onnx", "")
    with pytest.raises(BackendError, match="the model raised: ") as raised:
        await model.infer({"features": np.full((1, 16), 700, np.float32)}, within())
    assert "\n" not in str(raised.value)
    unload(model)


@pytest.mark.anyio
@pytest.mark.parametrize("step", ["not_finite", "grouped"])
async def test_memory_that_is_short_beside_a_run_fails_the_request_and_not_the_model(
    build: Build, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    model = build(tiny_onnx.largest)
    with monkeypatch.context() as short:
        short.setattr(runner, step, Mock(side_effect=MemoryError))
        with pytest.raises(BackendError):
            await model.infer(row(1.0), within())
    assert await model.infer(row(1.0), within())


@pytest.mark.anyio
async def test_wrong_tensors_are_an_error_not_a_crash(build: Build) -> None:
    model = build(tiny_onnx.largest)
    for wrong in ({"other": np.zeros(1)}, {"features": np.zeros((1, 3), np.float32)}, {}):
        with pytest.raises(BackendError):
            await model.infer(wrong, within())
    assert await model.infer(row(1.0), within())


@pytest.mark.anyio
async def test_a_hang_ends_at_the_deadline_and_the_thread_comes_back(build: Build) -> None:
    model = build(tiny_onnx.hanging)
    started = time.monotonic()
    with pytest.raises(BackendTimeout):
        await model.infer(row(1.0), within(0.1))
    assert time.monotonic() - started < 1.0
    assert await model.infer(row(0.0), within())


@pytest.mark.anyio
async def test_the_loop_turns_while_a_model_hangs(build: Build) -> None:
    model = build(tiny_onnx.hanging)
    hanging = asyncio.ensure_future(model.infer(row(1.0), within(0.3)))
    longest, turns = 0.0, 0
    while not hanging.done():
        before = time.monotonic()
        await asyncio.sleep(0)
        longest = max(longest, time.monotonic() - before)
        turns += 1
    assert isinstance(hanging.exception(), BackendTimeout)
    assert turns > 100
    assert longest < 0.25


@pytest.mark.anyio
async def test_a_hang_holds_up_no_other_model(build: Build) -> None:
    challenger, champion = build(tiny_onnx.hanging), build(tiny_onnx.largest)
    hang = await begun(challenger, 1.0)
    for _ in range(50):
        await champion.infer(row(1.0), within(0.25))
    assert not hang.done()
    hang.cancel()


@pytest.mark.anyio
async def test_deadlines_are_kept_in_whatever_order_they_come(build: Build) -> None:
    model = build(tiny_onnx.hanging)
    started = time.monotonic()
    kept: dict[float, float] = {}

    async def ask(seconds: float) -> None:
        with pytest.raises(BackendTimeout):
            await model.infer(row(1.0), within(seconds))
        kept[seconds] = time.monotonic() - started

    await asyncio.gather(*map(ask, (0.3, 0.1, 0.2, 0.1)))
    assert list(kept) == [0.1, 0.2, 0.3]
    assert all(seconds - 0.01 < after < seconds + 0.5 for seconds, after in kept.items())


@pytest.mark.anyio
async def test_who_waits_behind_a_hang_is_refused_at_their_own_deadline(build: Build) -> None:
    model = build(tiny_onnx.hanging)
    hang = await begun(model, 1.0)
    with pytest.raises(BackendTimeout):
        await model.infer(row(0.0), within(0.05))
    hang.cancel()  # the client left: the run is told to stop
    with pytest.raises(asyncio.CancelledError):
        await hang
    assert await model.infer(row(0.0), within())


@pytest.mark.anyio
async def test_a_hang_does_not_collect_requests_without_bound(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expired requests stay in the queue until the thread comes to them, so they must count against its size."""
    monkeypatch.setattr(onnx_model, "QUEUE_SIZE", 5)
    model = build(tiny_onnx.hanging)
    hang = await begun(model, 1.0)
    outcomes = []
    for _ in range(8):
        try:
            await model.infer(row(0.0), within(0.001))
        except BackendError as error:
            outcomes.append(type(error))
    assert outcomes == [BackendTimeout] * 5 + [BackendUnavailable] * 3
    hang.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hang


@pytest.mark.anyio
async def test_a_deadline_in_the_past_is_a_timeout(build: Build) -> None:
    with pytest.raises(BackendTimeout):
        await build(tiny_onnx.hanging).infer(row(1.0), within(-1))


@pytest.mark.anyio
async def test_an_unloaded_model_refuses_and_its_thread_ends(build: Build) -> None:
    model = build(tiny_onnx.largest)
    waiting = asyncio.ensure_future(model.infer(row(1.0), within()))
    await asyncio.sleep(0)
    model.close()
    assert await waiting
    with pytest.raises(BackendUnavailable):
        await model.infer(row(1.0), within())
    model._runner.thread.join(5)
    assert not model._runner.thread.is_alive()


def test_a_hang_on_zeros_does_not_hold_up_the_loading_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_up, "WARM_UP", 0.05)
    monkeypatch.setattr(warm_up, "TRIAL", 0.05)
    monkeypatch.setattr(np, "zeros", np.ones)
    started = time.monotonic()
    model = load(tiny_onnx.hanging(tmp_path / "m.onnx"), "")
    assert 0.05 <= time.monotonic() - started < 5.0  # it hung, and was stopped
    assert not model.runs
    unload(model)


BROKEN: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(missing_ok=True),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not a model"),
    "truncated": lambda path: path.write_bytes(tiny_onnx.largest(path).read_bytes()[:-40]),
    "future opset": lambda path: tiny_onnx.largest(path, opset=999),
    "a folder": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("declared", ["", "00" * 32])
def test_a_broken_file_is_a_model_error_that_names_it(tmp_path: Path, how: str, declared: str) -> None:
    path = tmp_path / "m.onnx"
    BROKEN[how](path)
    before = threading.active_count()
    with pytest.raises(ModelError, match=r"m\.onnx: "):
        load(path, declared)
    assert threading.active_count() == before


def test_another_file_than_declared_is_refused(tmp_path: Path) -> None:
    path = tiny_onnx.largest(tmp_path / "m.onnx")
    declared = digest(path)
    tiny_onnx.logarithm(path)
    with pytest.raises(ModelError, match="it was replaced"):
        load(path, declared)


def test_a_file_replaced_while_it_is_loaded_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_onnx.largest(tmp_path / "m.onnx")
    declared = digest(path)

    def slow_digest(given: Path) -> str:
        answer = digest(given)
        tiny_onnx.logarithm(tmp_path / "new.onnx")
        os.replace(tmp_path / "new.onnx", given)
        return answer

    monkeypatch.setattr(artifacts, "digest", slow_digest)
    before = threading.active_count()
    with pytest.raises(ModelError, match="while it was loaded"):
        load(path, declared)
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        pass
    assert threading.active_count() == before


@pytest.mark.anyio
async def test_what_is_loaded_stays_when_the_file_is_replaced(tmp_path: Path) -> None:
    path = tiny_onnx.largest(tmp_path / "m.onnx")
    model = load(path, digest(path))
    path.write_bytes(b"overwritten in place")
    (values,) = await model.infer(row(2.0), within())
    assert values.tolist() == [[2.0]]
    unload(model)


def test_the_signature_is_read_from_the_file() -> None:
    signature = inspect(FLIGHT_DELAY / "logistic.onnx")
    assert str(signature) == "(features: FP32[-1, 16]) -> (probability: FP32[-1, 1])"


@pytest.mark.anyio
async def test_text_goes_in_and_out(tmp_path: Path) -> None:
    model = load(tiny_onnx.echo(tmp_path / "m.onnx"), "")
    assert str(model.signature) == "(text: BYTES[-1, 2]) -> (echo: BYTES[-1, 2])"
    given = [np.array([["", f"caf\u00e9 {n}"]], object) for n in range(20)]
    answers = await asyncio.gather(*(model.infer({"text": one}, within()) for one in given))
    assert [values.tolist() for (values,) in answers] == [one.tolist() for one in given]
    assert model.runs < 20
    unload(model)


def test_a_model_that_is_unloaded_gives_its_memory_back(tmp_path: Path) -> None:
    path = tiny_onnx.heavy(tmp_path / "m.onnx", 64 << 20)
    unload(load(path, ""))  # what onnxruntime keeps for good is there now
    before = resident()
    model = load(path, "")
    assert resident() - before > 60 << 20
    unload(model)
    assert resident() - before < 16 << 20


@pytest.mark.parametrize(("shape", "large"), [((1 << 24,), False), ((1, (1 << 24) + 1), True), ((1 << 40, 0), False)])
def test_a_tensor_may_have_so_many_elements(shape: tuple[int, ...], large: bool) -> None:
    assert too_large(shape) is large
