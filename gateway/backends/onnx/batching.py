"""Several requests in one run: put together along the first dimension, and taken apart again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from gateway.backends.onnx.signature import Tensors

# Elements that may go into a shared run: 4 MiB of float32. Activations are a multiple of that, and requests as large
# as these gain nothing by company.
SHARED = 1 << 20

# Elements beyond which a run gives back the memory that it took: a quarter of a MiB of float32, and its activations may
# be hundreds. That makes such a run up to three times as long; kept, the memory of one request is gone for good.
LARGE = 1 << 16

Outputs = list[NDArray[Any]]


@dataclass(slots=True, eq=False)
class Job:
    """One request to a model. `deadline` is loop time in seconds."""

    inputs: Tensors
    deadline: float
    future: asyncio.Future[Outputs]

    @property
    def gone(self) -> bool:
        """Answered, expired or cancelled; the model's thread may ask too."""
        return self.future.done()

    @property
    def rows(self) -> int:
        """The first dimension of the first input, which is that of all in jobs that share a run."""
        first = next(iter(self.inputs.values()), None)
        return first.shape[0] if first is not None and first.ndim else 1

    @property
    def elements(self) -> int:
        return sum([values.size for values in self.inputs.values()])

    def kind(self) -> Hashable:
        """Equal for jobs that can share a run; the job itself where its inputs differ in rows."""
        if len({values.shape[:1] for values in self.inputs.values()}) != 1:
            return self
        return tuple([(name, values.dtype, values.shape[1:]) for name, values in self.inputs.items()])


@dataclass(slots=True, eq=False)
class Run:
    """One run of the session, for one job or several."""

    jobs: Sequence[Job]
    options: ort.RunOptions = field(default_factory=ort.RunOptions)

    def __post_init__(self) -> None:
        if sum([job.elements for job in self.jobs]) > LARGE:
            self.options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

    def stop_if_gone(self) -> None:
        """It raises at the next node; any thread may ask."""
        if all(job.gone for job in self.jobs):
            self.options.terminate = True


def taken(waiting: deque[Job], max_rows: int) -> list[Job]:
    """The next in line, and those behind it as far as there is room for them in one run; off the line."""
    first = waiting.popleft()
    if not waiting:
        return [first]
    jobs, rows, elements = [first], first.rows, first.elements
    while waiting:
        rows, elements = rows + waiting[0].rows, elements + waiting[0].elements
        if rows > max_rows or elements > SHARED:
            break
        jobs.append(waiting.popleft())
    return jobs


def grouped(jobs: Sequence[Job]) -> Iterable[list[Job]]:
    """The jobs by kind, in the order in which they came."""
    if len(jobs) == 1:
        return [list(jobs)]
    groups: dict[Hashable, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.kind(), []).append(job)
    return groups.values()


def merged(jobs: Sequence[Job]) -> dict[str, NDArray[Any]]:
    """The inputs of one run for jobs of one kind."""
    if len(jobs) == 1:
        return dict(jobs[0].inputs)
    return {name: np.concatenate([job.inputs[name] for job in jobs]) for name in jobs[0].inputs}


def split(outputs: Outputs, jobs: Sequence[Job]) -> list[Outputs]:
    """Each job's share of a run's outputs, as views; raises ValueError if the rows do not add up."""
    if len(jobs) == 1:
        return [outputs]
    ends = list(accumulate([job.rows for job in jobs]))
    if any(values.shape[:1] != (ends[-1],) for values in outputs):
        raise ValueError("the rows that came out are not those that went in")
    return [[values[start:end] for values in outputs] for start, end in zip([0, *ends], ends, strict=False)]


def not_finite(outputs: Outputs) -> int | None:
    """The place of the first output with NaN or infinity in it."""
    for place, values in enumerate(outputs):
        if values.dtype.kind == "f" and np.count_nonzero(np.isfinite(values)) != values.size:
            return place
    return None
