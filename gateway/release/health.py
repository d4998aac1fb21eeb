"""What the workers' status pages say to a release: who lives and has loaded what, which requests fail, whether facts
are lost.

Nothing here asks the store, so it is known also while the store is away.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from gateway.plan import BackendKey, Plan, PreparedPlan
from gateway.release.state import ReleaseState
from gateway.telemetry import metrics
from gateway.telemetry.status_page import LOAD_FAILURES, PageReading, PageSet, Word


class Preparation(NamedTuple):
    """How far a model is that no request reaches yet."""

    endpoint: str
    variant: str
    loaded: int  # workers that have it
    workers: int
    errors: tuple[str, ...]  # why a worker cannot load it, each with the worker's spool number


class Health:
    """The pages of one node, looked at once a tick."""

    def __init__(self, directory: Path) -> None:
        self.pages = PageSet(directory)
        self.living: list[PageReading] = []
        self._lost_before: int | None = None

    def look(self) -> None:
        self.living = self.pages.read()
        if self._lost_before is None:
            self._lost_before = self._lost

    @property
    def facts_lost(self) -> bool:
        """Whether a worker could not keep assignments since this process began to watch."""
        return self._lost_before is not None and self._lost > self._lost_before

    def counts(self, state: ReleaseState, variant: str) -> tuple[int, int]:
        """(requests, errors) of a variant since the experiment began, also of workers that died."""
        labels = state.endpoint, state.experiment, variant
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
        return [] if plan is None else [self._preparation(plan, place) for place in range(len(plan.prepare))]

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
