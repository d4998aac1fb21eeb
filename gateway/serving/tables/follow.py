"""Follow the plan file: swap the table as soon as its models are there, close what nobody uses any more.

The worker fails static: whatever is wrong with a plan file or a model, the last good table serves on, and the
status page says which plan was refused. It never waits either: a plan whose models are here is served from at once,
whatever an earlier one still loads.
"""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path
from typing import Protocol

from gateway import plan as plans
from gateway.backends.onnx import ModelError
from gateway.clock import Clock
from gateway.plan import Plan, PlanError, PreparedPlan
from gateway.serving.tables.loading import RETRY, Loader
from gateway.serving.tables.registry import Registry
from gateway.serving.tables.table import Table
from gateway.telemetry.status_page import StatusPage, Word, progress

log = logging.getLogger(__name__)


class Serving(Protocol):
    """What requests are answered from; whoever begins one looks anew."""

    table: Table | None


class PlanFollower:
    """Keeps the table in use up to date. One call of `follow` at a time."""

    def __init__(self, path: Path, registry: Registry, serving: Serving, page: StatusPage, clock: Clock) -> None:
        self._path = path
        self._registry = registry
        self._loader = Loader(registry, page, clock)
        self._serving = serving
        self._page = page
        self._clock = clock
        self._seen: _Identity | None = None
        self._retry_at = math.inf
        self._newest: Plan | None = None  # the plan to serve from, now or once its models are loaded
        self._retired: list[Table] = []  # with requests still in flight

    @property
    def loading(self) -> bool:
        """Whether a model is being loaded now."""
        return self._loader.busy

    async def follow(self) -> None:
        """Take a new plan if there is one, and close what no plan uses any more.

        Raises nothing: whatever is wrong with a plan, the last good one serves on.
        """
        try:
            data = self._fresh()
            if data is not None:
                self._newest = plans.decode(data)
                await self._registry.foresee(self._newest)
            if self._newest is not None:
                self._serve(self._newest)
            await self._retire()
            self._registry.report()
        except (OSError, PlanError) as error:
            log.error("the plan was refused; the last good one stays: %s", error)  # noqa: TRY400
        except Exception:
            log.exception("the plan was not followed; the last good one stays")

    async def close(self) -> None:
        await self._loader.close()

    def _fresh(self) -> bytes | None:
        """The plan file's bytes if it is another file than the last time, or if it is time to try again."""
        try:
            if _identity(self._path.stat()) == self._seen and self._clock.monotonic() < self._retry_at:
                return None
            with self._path.open("rb") as file:
                data = file.read()
                self._seen = _identity(os.fstat(file.fileno()))
            self._retry_at = math.inf
            return data
        except FileNotFoundError:
            return None

    def _serve(self, plan: Plan) -> None:
        """Swap to the plan if all its models are here, and see to it that they come, as well as those to prepare."""
        needed = tuple(plans.models(plan.endpoints))
        self._loader.want((*needed, *plan.prepare))
        if self._serving.table is None or self._serving.table.plan is not plan:
            if not self._registry.missing(needed):
                self._take(plan)
            elif why := self._loader.failure(needed):
                self._refuse(plan, why)
        self._report(plan)

    def _take(self, plan: Plan) -> None:
        try:
            table = self._registry.build(plan)
        except Exception as error:
            self._retry_at = self._clock.monotonic() + RETRY
            self._newest = None if self._serving.table is None else self._serving.table.plan
            self._refuse(plan, error)
            return
        if self._serving.table is not None:
            self._retired.append(self._serving.table)
        self._serving.table = table
        self._page.words[Word.PLAN_REVISION] = plan.revision
        self._page.words[Word.PLAN_REFUSED] = 0

    def _refuse(self, plan: Plan, why: Exception | str) -> None:
        if self._page.words[Word.PLAN_REFUSED] == plan.revision:
            return
        self._page.words[Word.PLAN_REFUSED] = plan.revision
        unknown = why if isinstance(why, Exception) and not isinstance(why, (ModelError, PlanError)) else None
        log.error("plan %d was refused: %s", plan.revision, why, exc_info=unknown)

    def _report(self, plan: Plan) -> None:
        """Tell how far the models are that no request reaches yet."""
        missing = {one.key for one in self._registry.missing(plan.prepare)}
        loaded = [one.key not in missing for one in plan.prepare]
        failed = [one.key in missing and bool(self._loader.failure((one,))) for one in plan.prepare]
        self._page.words[Word.PREPARED] = progress(plan.revision, loaded)
        self._page.words[Word.PREPARE_FAILED] = progress(plan.revision, failed)

    async def _retire(self) -> None:
        self._retired = [table for table in self._retired if table.in_flight]
        serving = [self._serving.table] if self._serving.table is not None else []
        await self._registry.retire([*serving, *self._retired], self._promised)

    @property
    def _promised(self) -> tuple[PreparedPlan, ...]:
        plan = self._newest
        return () if plan is None else (*plans.models(plan.endpoints), *plan.prepare)


_Identity = tuple[int, int, int, int]


def _identity(stat: os.stat_result) -> _Identity:
    # The plan is replaced by a rename, which no time stamp or length can hide: inode and ctime tell.
    return stat.st_ino, stat.st_ctime_ns, stat.st_mtime_ns, stat.st_size
