"""How long outcomes take to come, by variant, and whether that differs between variants. Pure.

Verdicts do not depend on it: every outcome has the same window, and counts when that has closed. But whoever looks at
what has arrived so far sees a variant whose users answer faster as a better one, and a window that is too short for one
variant loses its slow outcomes; so a difference is an alarm. It is found by bands around both distribution functions
that hold at all times at once (`stats.ecdf`), for outcomes that are independent of each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import NamedTuple

from gateway.stats.ecdf import FEWEST, ecdf_radius
from gateway.store.base import Lag

ALPHA = 0.001  # of a false alarm in one metric, ever
_BUCKETS = 64


class VariantLag(NamedTuple):
    """Outcomes of one metric and variant."""

    metric: str
    variant: str
    outcomes: int
    median_seconds: float  # upper end of the bucket that holds it
    differs: bool  # from another variant's


def lags(counts: Mapping[Lag, int], variants: tuple[str, ...]) -> list[VariantLag]:
    """What is known of each metric and variant that has outcomes."""
    histograms: dict[str, dict[str, list[int]]] = {}
    for lag, number in counts.items():
        if lag.variant in variants:
            of_metric = histograms.setdefault(lag.metric, {})
            of_metric.setdefault(lag.variant, [0] * _BUCKETS)[lag.bucket] += number
    return [one for metric, of in sorted(histograms.items()) for one in _of_metric(metric, of, variants)]


def _of_metric(metric: str, histograms: Mapping[str, list[int]], variants: tuple[str, ...]) -> Iterator[VariantLag]:
    pairs = max(1, len(histograms) * (len(histograms) - 1) // 2)
    for variant in variants:
        if variant not in histograms:
            continue
        others = [other for name, other in histograms.items() if name != variant]
        differs = any(_differ(histograms[variant], other, ALPHA / pairs) for other in others)
        yield VariantLag(metric, variant, sum(histograms[variant]), _median(histograms[variant]), differs)


def _differ(one: list[int], other: list[int], alpha: float) -> bool:
    total, total_of_other = sum(one), sum(other)
    if min(total, total_of_other) < FEWEST:
        return False
    radius = ecdf_radius(total, alpha / 2) + ecdf_radius(total_of_other, alpha / 2)
    steps = zip(accumulate(one), accumulate(other), strict=True)
    return any(abs(mine / total - theirs / total_of_other) > radius for mine, theirs in steps)


def _median(histogram: list[int]) -> float:
    half = sum(histogram) / 2
    bucket = next(number for number, reached in enumerate(accumulate(histogram)) if reached >= half)
    return 2.0**bucket / 1000.0
