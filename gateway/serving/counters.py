"""The status-page slots of endpoints and variants, looked up once per plan so that a request only adds integers."""

from __future__ import annotations

from typing import Literal

from gateway.serving.answers.readings import Read
from gateway.serving.answers.streams import Stream
from gateway.telemetry import metrics
from gateway.telemetry.status_page import StatusPage


class EndpointCounters:
    """Answers of one endpoint, by status."""

    __slots__ = ("_endpoint", "_page", "_slots", "_words")

    def __init__(self, page: StatusPage, endpoint: str) -> None:
        self._page = page
        self._words = page.words
        self._endpoint = endpoint
        self._slots: dict[int, int] = {}

    def responded(self, status: int) -> None:
        slot = self._slots.get(status)
        if slot is None:
            slot = self._slots[status] = self._page.slot(metrics.RESPONSES.name, (self._endpoint, str(status)))
        self._words[slot] += 1


class VariantCounters:
    """Slots of one (endpoint, experiment, variant)."""

    __slots__ = ("_duration", "_endpoint", "_errors", "_fallbacks", "_ok", "_page", "_variant", "_words")

    def __init__(self, page: StatusPage, endpoint: str, experiment: str, variant: str) -> None:
        labels = (endpoint, experiment, variant)
        self._page = page
        self._words = page.words
        self._endpoint, self._variant = endpoint, variant
        self._ok = page.slot(metrics.COMPLETIONS.name, (*labels, "ok"))
        self._errors = page.slot(metrics.COMPLETIONS.name, (*labels, "error"))
        self._fallbacks = page.slot(metrics.FALLBACKS.name, (endpoint, variant))
        self._duration = page.slot(metrics.DURATION.name, (endpoint, variant), metrics.HISTOGRAM_SLOTS)

    def completed(self, error: str, microseconds: int, fell_back: bool) -> None:
        words = self._words
        words[self._errors if error else self._ok] += 1
        words[self._duration + metrics.latency_slot(microseconds)] += 1
        words[self._duration + metrics.HISTOGRAM_SLOTS - 1] += microseconds
        if fell_back:
            words[self._fallbacks] += 1
        if error:
            self._count(metrics.ATTEMPT_ERRORS, error)

    def breaker_opened(self) -> None:
        self._count(metrics.BREAKER_OPENED)

    def unread(self) -> None:
        """An answer in which the prediction could not be read."""
        self._count(metrics.UNREAD_PREDICTIONS)

    def read(self, read: Read) -> None:
        """What was read from an answer, and what could not be."""
        for metric in (*read.unread, *read.refused, *("",) * read.oversized):
            self._count(metrics.UNREAD_ANSWERS, metric)
        if read.stream is not None:
            self._streamed(read.stream)

    def _streamed(self, stream: Stream) -> None:
        labels = (self._endpoint, self._variant)
        if stream.first_token is not None:
            microseconds = round(stream.first_token * 1e6)
            slot = self._page.slot(metrics.FIRST_TOKEN.name, labels, metrics.HISTOGRAM_SLOTS)
            self._words[slot + metrics.latency_slot(microseconds)] += 1
            self._words[slot + metrics.HISTOGRAM_SLOTS - 1] += microseconds
        if stream.tokens:
            self._words[self._page.slot(metrics.STREAM_TOKENS.name, labels)] += stream.tokens
        if stream.aborted:
            self._count(metrics.STREAMS_ABORTED)

    def shadowed(self, result: Literal["ok", "error", "dropped"]) -> None:
        self._count(metrics.SHADOW_REQUESTS, result)

    def _count(self, metric: metrics.Metric, *more: str) -> None:
        """For what is rare, or not there with most plans: such a series takes a slot when it first happens."""
        self._words[self._page.slot(metric.name, (self._endpoint, self._variant, *more))] += 1


class UpstreamCounters:
    """What happens among the replicas of one variant's upstream."""

    __slots__ = ("_endpoint", "_page", "_variant")

    def __init__(self, page: StatusPage, endpoint: str, variant: str) -> None:
        self._page = page
        self._endpoint, self._variant = endpoint, variant

    def retried(self, reason: str) -> None:
        self._page.words[self._slot(metrics.UPSTREAM_RETRIES, reason)] += 1

    def ejected(self, upstream: str) -> None:
        self._page.words[self._slot(metrics.UPSTREAM_EJECTIONS, upstream)] += 1

    def available(self, upstream: str, available: bool) -> None:
        self._page.words[self._slot(metrics.UPSTREAM_AVAILABLE, upstream)] = int(available)

    def _slot(self, metric: metrics.Metric, *more: str) -> int:
        return self._page.slot(metric.name, (self._endpoint, self._variant, *more))
