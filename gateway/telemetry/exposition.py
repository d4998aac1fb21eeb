"""Sums of all workers and the state of the control process, as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from gateway.telemetry import metrics
from gateway.telemetry.metrics import LATENCY_BOUNDS_US, WORKER_METRICS, Metric
from gateway.telemetry.status_page import Series

Sample = tuple[Metric, tuple[str, ...], float | tuple[int, ...]]


class GatewayCollector(Collector):
    """Builds all families anew at every scrape from what `read` returns: worker sums and control samples."""

    def __init__(self, read: Callable[[], tuple[dict[Series, tuple[int, ...]], Iterable[Sample]]]) -> None:
        self._read = read

    def describe(self) -> Iterable[Family]:
        return []  # nothing is read before the first scrape

    def collect(self) -> Iterator[Family]:
        totals, samples = self._read()
        families: dict[str, Family] = {}
        for (name, labels), values in sorted(totals.items()):
            metric = WORKER_METRICS.get(name)
            if metric is None:
                continue  # a page of another version of the program
            _add(families, metric, labels, values)
        for metric, labels, value in samples:
            _add(families, metric, labels, value if isinstance(value, tuple) else (value,))
        yield from families.values()


def render(collector: GatewayCollector, accept: str) -> tuple[bytes, str]:
    """The exposition and its content type, text format or OpenMetrics as the scraper prefers."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    encoder, content_type = choose_encoder(accept)
    return encoder(registry), content_type


def _add(families: dict[str, Family], metric: Metric, labels: tuple[str, ...], values: tuple[float, ...]) -> None:
    """Add one sample to its family, which is made on first use."""
    known = families.get(metric.name)
    if metric.kind == "histogram":
        histogram = known or HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        assert isinstance(histogram, HistogramMetricFamily)
        histogram.add_metric(labels, *_buckets(values))
        families[metric.name] = histogram
        return
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = known or kind(metric.name, metric.help, labels=metric.labels)
    assert isinstance(family, (CounterMetricFamily, GaugeMetricFamily))
    family.add_metric(labels, values[0])
    families[metric.name] = family


def _buckets(values: tuple[float, ...]) -> tuple[list[tuple[str, float]], float]:
    """Cumulative buckets with bounds in seconds, and the sum in seconds."""
    buckets: list[tuple[str, float]] = []
    running = 0.0
    for bound, count in zip(LATENCY_BOUNDS_US, values, strict=False):
        running += count
        buckets.append((repr(bound / 1e6), running))
    buckets.append(("+Inf", running + values[len(LATENCY_BOUNDS_US)]))
    return buckets, values[metrics.HISTOGRAM_SLOTS - 1] / 1e6
