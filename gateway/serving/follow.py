"""Follow the plan file: build what a new plan needs, swap the table, close what nobody uses any more.

The worker fails static: whatever is wrong with a plan file or a model, the last good table serves on, and the
status page says which plan was refused.
"""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path

from gateway import plan as plans
from gateway.backends.onnx import ModelError
from gateway.clock import Clock
from gateway.plan import Plan, PlanError
from gateway.serving.app import DataApp
from gateway.serving.table import Registry, Table
from gateway.telemetry.status_page import StatusPage, Word

log = logging.getLogger(__name__)

RETRY = 5.0  # seconds before a plan that could not be built is tried again


class PlanFollower:
    """Keeps the app's table up to date. One call of `follow` at a time."""

    def __init__(self, path: Path, registry: Registry, app: DataApp, page: StatusPage, clock: Clock) -> None:
        self._path = path
        self._registry = registry
        self._app = app
        self._page = page
        self._clock = clock
        self._seen: _Identity | None = None
        self._retry_at = math.inf
        self._retired: list[Table] = []  # with requests still in flight

    async def follow(self) -> None:
        """Take a new plan if there is one, and close what no plan uses any more.

        Raises nothing: whatever is wrong with a plan, the last good one serves on.
        """
        try:
            data = self._fresh()
            if data is not None:
                await self._take(plans.decode(data))
            await self._retire()
        except (OSError, PlanError) as error:
            log.error("the plan was refused; the last good one stays: %s", error)  # noqa: TRY400
        except Exception:
            log.exception("the plan was not followed; the last good one stays")

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

    async def _take(self, plan: Plan) -> None:
        try:
            table = await self._registry.build(plan)
        except Exception as error:
            # A model that is not there yet, no memory, no descriptors: that may pass.
            self._retry_at = self._clock.monotonic() + RETRY
            self._page.words[Word.PLAN_REFUSED] = plan.revision
            known = isinstance(error, (ModelError, PlanError))
            log.error("plan %d was refused: %s", plan.revision, error, exc_info=None if known else error)  # noqa: TRY400
            return
        if self._app.table is not None:
            self._retired.append(self._app.table)
        self._app.table = table
        self._page.words[Word.PLAN_REVISION] = plan.revision
        self._page.words[Word.PLAN_REFUSED] = 0

    async def _retire(self) -> None:
        self._retired = [table for table in self._retired if table.in_flight]
        serving = [self._app.table] if self._app.table is not None else []
        await self._registry.retire([*serving, *self._retired])


_Identity = tuple[int, int, int, int]


def _identity(stat: os.stat_result) -> _Identity:
    # The plan is replaced by a rename, which no time stamp or length can hide: inode and ctime tell.
    return stat.st_ino, stat.st_ctime_ns, stat.st_mtime_ns, stat.st_size
