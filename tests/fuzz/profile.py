"""How long is fuzzed: short and always the same by default; `make prove` asks for `long`, with new cases every time."""

from __future__ import annotations

import os
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import HealthCheck, settings

PROFILE, EXAMPLES = "FUZZ_PROFILE", "FUZZ_EXAMPLES"  # variables of the environment
_PATIENT = (HealthCheck.too_slow, HealthCheck.data_too_large)  # of the machine, not of the code

settings.register_profile(
    "short", max_examples=80, derandomize=True, database=None, deadline=None, suppress_health_check=_PATIENT
)
settings.register_profile(
    "long",
    max_examples=int(os.environ.get(EXAMPLES, "5000")),
    deadline=None,
    suppress_health_check=_PATIENT,
    print_blob=True,
)
LONG = os.environ.get(PROFILE, "short") == "long"
FUZZ = settings.get_profile("long" if LONG else "short")


@contextmanager
def frugal(seconds: float = 1.0, allocated: int | None = None) -> Iterator[None]:
    """What is done inside takes no more of the processor and, if that is bounded, of memory (bytes)."""
    if allocated is not None:
        tracemalloc.start()
    began = time.thread_time()  # not the clock: the machine may have others to serve
    try:
        yield
    finally:
        used, peak = time.thread_time() - began, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert used < seconds  # whether it succeeded or was refused
        assert allocated is None or peak < allocated
