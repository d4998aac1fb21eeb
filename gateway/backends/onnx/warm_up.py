"""The first runs of a model, before any client's: they pay for lazy initialisation and see what may be batched."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from gateway.backends.onnx.signature import Signature, TensorSpec

WARM_UP = 5.0  # seconds that the first run may take
TRIAL = 1.0  # seconds for the runs that try batching, all together: a slower model gains little by it

_ROWS = 4
# A kernel may add up in another order for several rows than for one. Per output, relative to its largest value: some
# 1e-4 for float32. A model that looks at its neighbours is off by its own order of magnitude.
_TOLERANCE = 1024  # units of the type's rounding error

_Run = Callable[[dict[str, NDArray[Any]]], list[NDArray[Any]]]
_Draw = Callable[[np.random.Generator, tuple[int, ...]], NDArray[Any]]

# Of different sizes, because a model may be blind to its neighbours at one of them: saturated, or clipped.
_DRAWS: tuple[_Draw, ...] = (
    lambda rng, shape: rng.random(shape),
    lambda rng, shape: rng.normal(0, 1, shape),
    lambda rng, shape: rng.normal(0, 100, shape),
)


def warm_up(session: ort.InferenceSession, signature: Signature) -> str:
    """Run on zeros, then see whether rows are answered together as they are alone. Why not, or "" if they are.

    A model may legitimately refuse zeros; what it does with real inputs is for the traffic to tell. That requests do
    not notice each other is seen, not proved: the rows are made up.
    """
    with _at_most(WARM_UP) as options, suppress(Exception):
        zeros = {spec.name: np.zeros(_shape(spec, 1), spec.dtype) for spec in signature.inputs}
        session.run(None, zeros, options)
    if not signature.has_rows:
        return "not every input and output has a free first dimension"
    with _at_most(TRIAL) as options:
        run = partial(session.run, None, run_options=options)
        seen = [_unmoved(run, signature, draw) for draw in _DRAWS]
    if False in seen:
        return "a row's answer depends on the rows beside it"
    return "" if True in seen else "it answers none of the made-up rows, or takes too long"


@contextmanager
def _at_most(seconds: float) -> Iterator[ort.RunOptions]:
    """Options for runs that end with the time."""
    options = ort.RunOptions()
    watchdog = threading.Timer(seconds, setattr, (options, "terminate", True))
    watchdog.start()
    try:
        yield options
    finally:
        watchdog.cancel()


def _unmoved(run: _Run, signature: Signature, draw: _Draw) -> bool | None:
    """Whether the rows drawn are answered together as they are alone; None if the model raises on them."""
    rng = np.random.default_rng(0)
    inputs = {spec.name: _drawn(spec, draw, rng) for spec in signature.inputs}
    try:
        together = run(inputs)
        alone = [run({name: rows[[place]] for name, rows in inputs.items()}) for place in range(_ROWS)]
    except Exception:
        return None
    return all(_same(whole, list(parts)) for whole, parts in zip(together, zip(*alone, strict=True), strict=True))


def _drawn(spec: TensorSpec, draw: _Draw, rng: np.random.Generator) -> NDArray[Any]:
    """Numbers for numbers; 0 and 1 for integers, booleans and (as text) strings, because most codes have them."""
    shape = _shape(spec, _ROWS)
    if np.dtype(spec.dtype).kind == "f":
        return draw(rng, shape).astype(spec.dtype)
    return rng.integers(0, 2, shape).astype(spec.dtype)


def _same(whole: NDArray[Any], parts: list[NDArray[Any]]) -> bool:
    if any(part.shape != (1, *whole.shape[1:]) for part in parts) or len(whole) != _ROWS:
        return False
    alone = np.concatenate(parts)
    if whole.dtype.kind != "f":
        return np.array_equal(whole, alone)
    tolerance = _TOLERANCE * float(np.finfo(whole.dtype).eps)
    largest = np.max(np.abs(alone), where=np.isfinite(alone), initial=0.0)
    return np.allclose(whole, alone, rtol=tolerance, atol=tolerance * largest, equal_nan=True)


def _shape(spec: TensorSpec, rows: int) -> tuple[int, ...]:
    """Every other free dimension is 1."""
    return (*(rows if size < 0 else size for size in spec.shape[:1]), *(max(size, 1) for size in spec.shape[1:]))
