"""What is read from answers, in the counters of its variant."""

from __future__ import annotations

from pathlib import Path

from gateway.serving.answers.readings import Read
from gateway.serving.answers.streams import Stream
from gateway.serving.counters import VariantCounters
from gateway.telemetry.metrics import FIRST_TOKEN, STREAM_TOKENS, STREAMS_ABORTED, UNREAD_ANSWERS, latency_slot
from gateway.telemetry.status_page import StatusPage, read_page


def test_streams_and_what_could_not_be_read_are_counted_by_variant(tmp_path: Path) -> None:
    page = StatusPage(tmp_path / "1.page")
    counters = VariantCounters(page, "chat", "exp", "a")
    counters.read(Read([("tokens", 4.0)], ["cost"], ["safe"], Stream(0.3, 0.1, 7, 2.0, False), 2))
    counters.read(Read([], ["cost"], [], Stream(None, None, None, None, True), 0))
    counters.read(Read([], [], [], None, 0))
    reading = read_page(tmp_path / "1.page")
    page.close()
    assert reading is not None
    found = {series: values for series, values in reading.series.items() if any(values)}
    first = found.pop((FIRST_TOKEN.name, ("chat", "a")))
    assert (first[latency_slot(300_000)], first[-1], sum(first)) == (1, 300_000, 300_001)
    assert found == {
        (UNREAD_ANSWERS.name, ("chat", "a", "cost")): (2,),
        (UNREAD_ANSWERS.name, ("chat", "a", "safe")): (1,),
        (UNREAD_ANSWERS.name, ("chat", "a", "")): (2,),
        (STREAM_TOKENS.name, ("chat", "a")): (7,),
        (STREAMS_ABORTED.name, ("chat", "a")): (1,),
    }
