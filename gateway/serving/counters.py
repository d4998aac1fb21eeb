"""The status-page slots of one endpoint, looked up once per plan so that a request only adds integers."""

from __future__ import annotations

from gateway.telemetry import metrics
from gateway.telemetry.status_page import StatusPage


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
            words[self._page.slot(metrics.ATTEMPT_ERRORS.name, (self._endpoint, self._variant, error))] += 1

    def breaker_opened(self) -> None:
        self._words[self._page.slot(metrics.BREAKER_OPENED.name, (self._endpoint, self._variant))] += 1
