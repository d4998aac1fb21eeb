"""What the workers' status pages say to a release: who lives, which requests fail, whether facts are lost.

Nothing here asks the store, so it is known also while the store is away.
"""

from __future__ import annotations

from pathlib import Path

from gateway.release.state import ReleaseState
from gateway.telemetry import metrics
from gateway.telemetry.status_page import PageReading, PageSet


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

    @property
    def _lost(self) -> int:
        return self.pages.total((metrics.SPOOL_FAILURES.name, ("requests",)), self.living)
