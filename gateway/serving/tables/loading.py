"""Load models beside the traffic: one at a time, in a thread, again after a while where it failed.

Nothing that serves waits for a load, however slow or broken it is; nor does the next load for one that hangs.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from gateway.backends.onnx import ModelError, OnnxModel, load
from gateway.clock import Clock
from gateway.plan import BackendKey, PreparedPlan, VariantPlan
from gateway.serving.tables.registry import Registry
from gateway.telemetry.native import Mark, Marks
from gateway.telemetry.status_page import LOAD_FAILURES, StatusPage

log = logging.getLogger(__name__)

RETRY = 5.0  # seconds before a model that could not be loaded is tried again
DEADLINE = 600.0  # seconds after which a load is left to itself
MESSAGES = 3  # reasons of one model that are told apart on the status page, which has room for so many series
OTHERS = "for other reasons than before, which the log tells"


class _Failure(NamedTuple):
    message: str
    retry_at: float  # seconds on the monotonic clock


class _Load(NamedTuple):
    """A load under way."""

    key: BackendKey
    due: float  # seconds on the monotonic clock
    result: asyncio.Future[OnnxModel]
    thread: threading.Thread


class Loader:
    """Fills a registry with the models that are wanted. It owns the one task that loads.

    A load that takes longer than `deadline` seconds has failed, and its model is closed should it come. It is not tried
    again while its thread hangs, so that no more threads hang than models are wanted.
    """

    def __init__(self, registry: Registry, page: StatusPage, clock: Clock, deadline: float = DEADLINE) -> None:
        self._registry = registry
        self._page = page
        self._marks = Marks(page)
        self._clock = clock
        self._deadline = deadline
        self._wanted: Sequence[PreparedPlan] = ()
        self._failures: dict[BackendKey, _Failure] = {}
        self._told: dict[tuple[str, str, str], set[str]] = {}  # by endpoint, variant and digest: on the status page
        self._load: _Load | None = None
        self._hanging: list[_Load] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        return self._task is not None and not self._task.done()

    def want(self, models: Sequence[PreparedPlan]) -> None:
        """From now on these are wanted, in this order. A load under way goes on; its model may be closed unused.

        Call it every now and then also without news: that is when failed loads are tried again, and a load that
        hangs is given up.
        """
        self._wanted = models
        keys = {one.key for one in models}
        self._failures = {key: failure for key, failure in self._failures.items() if key in keys}
        self._give_up_what_hangs()
        if not self.busy and self._next() is not None:
            self._task = asyncio.create_task(self._load_all())

    def failure(self, models: Sequence[PreparedPlan]) -> str:
        """Why the first of these that could not be loaded could not, or ""."""
        return next((self._failures[one.key].message for one in models if one.key in self._failures), "")

    async def close(self) -> None:
        """A load that never ends keeps nobody: its thread is left to itself."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def _next(self) -> PreparedPlan | None:
        now = self._clock.monotonic()
        self._hanging = [load for load in self._hanging if load.thread.is_alive()]
        resting = {key for key, failure in self._failures.items() if now < failure.retry_at}
        resting |= {load.key for load in self._hanging}
        return next((one for one in self._registry.missing(self._wanted) if one.key not in resting), None)

    async def _load_all(self) -> None:
        while (one := self._next()) is not None:
            try:
                marks = self._marks.of(one.endpoint, one.variant.name, one.variant.digest)
                self._load = _Load(one.key, self._clock.monotonic() + self._deadline, *_begun(one.variant, *marks))
                model = await self._load.result
            except Exception as error:
                # A model that is not there yet, no memory, no descriptors: that may pass.
                self._remember(one, error)
            else:
                self._failures.pop(one.key, None)
                self._registry.add(one, model)
            finally:
                self._load = None  # whose result would hold the model for good

    def _give_up_what_hangs(self) -> None:
        load = self._load
        if load is not None and not load.result.done() and self._clock.monotonic() >= load.due:
            self._hanging.append(load)
            load.result.set_exception(ModelError(f"not loaded within {self._deadline:g} s, and left to itself"))

    def _remember(self, one: PreparedPlan, error: Exception) -> None:
        message = str(error) or type(error).__name__
        known = isinstance(error, ModelError)
        log.error("%s/%s: %s", one.endpoint, one.variant.name, message, exc_info=None if known else error)
        self._failures[one.key] = _Failure(message, self._clock.monotonic() + RETRY)
        about = one.endpoint, one.variant.name, one.variant.digest
        self._page.words[self._page.slot(LOAD_FAILURES, (*about, self._told_as(about, message[:300])))] += 1

    def _told_as(self, about: tuple[str, str, str], message: str) -> str:
        told = self._told.setdefault(about, set())
        if message not in told:
            if len(told) == MESSAGES:
                return OTHERS
            told.add(message)
        return message


def _begun(variant: VariantPlan, loading: Mark, running: Mark) -> tuple[asyncio.Future[OnnxModel], threading.Thread]:
    """Load and warm up in a thread of its own: one of a pool would keep the process from ending while it hangs."""
    loop = asyncio.get_running_loop()
    loaded: asyncio.Future[OnnxModel] = loop.create_future()

    def work() -> None:
        result: OnnxModel | Exception
        try:
            with loading:
                result = load(Path(variant.onnx), variant.digest, variant.threads, variant.max_batch, running)
        except Exception as error:
            result = error
        try:
            loop.call_soon_threadsafe(_deliver, loaded, result)
        except RuntimeError:  # the loop is closed: nobody waits any more
            if isinstance(result, OnnxModel):
                result.close()

    thread = threading.Thread(target=work, name=f"load {variant.name}", daemon=True)
    thread.start()
    return loaded, thread


def _deliver(loaded: asyncio.Future[OnnxModel], result: OnnxModel | Exception) -> None:
    if isinstance(result, Exception):
        if not loaded.done():
            loaded.set_exception(result)
    elif loaded.done():
        result.close()
    else:
        loaded.set_result(result)
