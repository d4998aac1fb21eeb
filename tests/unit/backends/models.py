"""What the tests of in-process models share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gateway.backends.onnx import OnnxModel, Tensors
from tests.unit.backends import tiny_onnx

FLIGHT_DELAY = Path(__file__).parents[3] / "models" / "flight_delay"
Build = Callable[..., OnnxModel]


def row(value: float, rows: int = 1) -> Tensors:
    return {"features": np.full((rows, tiny_onnx.FEATURES), value, np.float32)}


def within(seconds: float = 5.0) -> float:
    return asyncio.get_running_loop().time() + seconds


async def begun(model: OnnxModel, value: float) -> asyncio.Future[object]:
    """A request that the model's thread has begun; what is asked next waits behind it."""
    call: asyncio.Future[object] = asyncio.ensure_future(model.infer(row(value), within(60)))
    await asyncio.sleep(0)
    while model.waiting:
        await asyncio.sleep(0)
    return call


def unload(model: OnnxModel) -> None:
    """Ends the model's thread, which must not be left behind."""
    model.close()
    thread = model._runner.thread
    thread.join(5)
    assert not thread.is_alive()
