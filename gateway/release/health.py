"""What the workers' status pages say to a release: who lives and has loaded what, which requests fail, whether facts
are lost.

Nothing here asks the store, so it is known also while the store is away.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from gateway import ends
from gateway.clock import Clock
from gateway.plan import BackendKey, Plan, PreparedPlan, models
from gateway.release.crashes import Crashes
from gateway.release.kill import Counts
from gateway.release.sparing import model_of
from gateway.telemetry import metrics
from gateway.telemetry.page_set import Fallen, PageSet
from gateway.telemetry.status_page import LOAD_FAILURES, PageReading, Word

log = logging.getLogger(__name__)


class Preparation(NamedTuple):
    """How far a model is that no request reaches yet."""

    endpoint: str
    variant: str
    loaded: int  # workers that have it
    workers: int
    errors: tuple[str, ...]  # why a worker cannot load it, each with the worker's spool number


class Health:
    """The pages of one node, looked at once a tick."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self.pages = PageSet(directory)
        self.crashes = Crashes()
        self._clock = clock
        self.living: list[PageReading] = []
        self._lost_before: int | None = None

    def look(self) -> None:
        self.living = self.pages.read()
        for fallen in sorted(self.pages.fallen(), key=lambda one: self._died_at(one.reading)):
            self._note(fallen)
        if self._lost_before is None:
            self._lost_before = self._lost

    @property
    def facts_lost(self) -> bool:
        """Whether a worker could not keep assignments since this process began to watch."""
        return self._lost_before is not None and self._lost > self._lost_before

    def compared(
        self, endpoint: str, experiment: str, champion: str, challengers: Iterable[str]
    ) -> tuple[Counts, dict[str, Counts]]:
        """What the kill rule looks at: the counts of the champion, and of each challenger."""
        of = {name: self._counts(endpoint, experiment, name) for name in challengers}
        return self._counts(endpoint, experiment, champion), of

    def _counts(self, *labels: str) -> Counts:
        """(requests, errors) of a variant since the experiment began, also of workers that died."""
        ok, bad = (
            self.pages.total((metrics.COMPLETIONS.name, (*labels, result)), self.living) for result in ("ok", "error")
        )
        return ok + bad, bad

    def loaded(self, plan: Plan | None) -> frozenset[BackendKey]:
        """The models that a plan prepares and every living worker has loaded; none while nobody lives to tell.

        The only worker may just have died of loading one.
        """
        if plan is None or not (workers := self._staying):
            return frozenset()
        told = [page.progress(Word.PREPARED, plan.revision) for page in workers]
        return frozenset(one.key for place, one in enumerate(plan.prepare) if all(bits >> place & 1 for bits in told))

    def serve_from(self, plan: Plan | None) -> bool:
        """Whether every living worker has taken the plan."""
        return plan is not None and all(page.word(Word.PLAN_REVISION) == plan.revision for page in self.living)

    def preparations(self, plan: Plan | None) -> list[Preparation]:
        """The models that get no traffic, or not yet: those that the plan prepares, and those that are stopped."""
        if plan is None:
            return []
        stopped = self._stopped(plan)
        return [*(self._preparation(plan, place) for place in range(len(plan.prepare))), *stopped]

    def _stopped(self, plan: Plan) -> list[Preparation]:
        """Not the champion, which goes on."""
        serving = {model_of(one.endpoint, one.variant) for one in models(plan.endpoints)}
        workers = max(1, len(self._staying))  # the reason is there also while nobody is
        return [
            Preparation(model.endpoint, model.variant, 0, workers, (why,) * workers)
            for model, why in self.crashes.stopped.items()
            if model not in serving
        ]

    def _note(self, fallen: Fallen) -> None:
        """A worker has ended unasked."""
        page, how = fallen
        if how == ends.MEMORY:
            return
        running = page.in_native_code
        names = ", ".join(sorted(map(str, running))) or "no model"
        log.error("worker %d ended (%s) while it ran %s", page.word(Word.SPOOL), how, names)
        if how in ends.NATIVE:
            for model in self.crashes.note(self._died_at(page), running, how):
                log.error("%s is stopped on this node: %s", model, self.crashes.stopped[model])

    def _died_at(self, page: PageReading) -> float:
        """Seconds of the wall clock. Who has never beaten died just now, as far as anybody knows."""
        now = self._clock.wall_us()
        return min(page.word(Word.HEARTBEAT_US) or now, now) / 1e6

    @property
    def _staying(self) -> list[PageReading]:
        """The workers that new traffic will reach; one that drains must keep nobody waiting."""
        return [page for page in self.living if not page.word(Word.DRAINING)]

    def _preparation(self, plan: Plan, place: int) -> Preparation:
        one, workers = plan.prepare[place], self._staying
        loaded = sum(_bit(page, Word.PREPARED, plan, place) for page in workers)
        errors = tuple(_error(page, one) for page in workers if _bit(page, Word.PREPARE_FAILED, plan, place))
        return Preparation(one.endpoint, one.variant.name, loaded, len(workers), errors)

    @property
    def _lost(self) -> int:
        return self.pages.total((metrics.SPOOL_FAILURES.name, ("requests",)), self.living)


def _bit(page: PageReading, word: Word, plan: Plan, place: int) -> bool:
    return bool(page.progress(word, plan.revision) >> place & 1)


def _error(page: PageReading, one: PreparedPlan) -> str:
    """The newest message of a worker about a model that it cannot load."""
    about = one.endpoint, one.variant.name, one.variant.digest
    messages = [labels[3] for name, labels in page.series if name == LOAD_FAILURES and labels[:3] == about]
    return f"worker {page.word(Word.SPOOL)}: {messages[-1] if messages else 'its log says why'}"
