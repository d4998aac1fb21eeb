"""Facts are kept, or their loss is counted."""

from __future__ import annotations

from gateway.errors import SpoolError
from gateway.events import Fact
from gateway.spool.writer import SpoolWriter
from gateway.telemetry import metrics
from gateway.telemetry.status_page import StatusPage


def keep(fact: Fact, spool: SpoolWriter, page: StatusPage, *more: Fact) -> None:
    """Append; when the disk is full the request goes on and the loss is counted (it freezes promotion)."""
    try:
        if more:
            spool.append_all([fact, *more])
        else:
            spool.append(fact)
    except SpoolError:
        page.words[page.slot(metrics.SPOOL_FAILURES.name, (spool.stream,))] += 1
