"""Which values a metric takes, whether they are posted or read from an answer."""

from __future__ import annotations

import math
from typing import Any

from gateway.errors import ValueRejected
from gateway.plan import MetricPlan


def checked(metric: MetricPlan, value: Any) -> float:
    """The value of an outcome; raises ValueRejected if it is none of this metric."""
    number = finite(metric.name, value)
    if metric.type == "binary" and number not in (0, 1):
        raise ValueRejected(f"{metric.name}: a binary metric takes 0, 1, true or false, not {value}")
    low, high = limits(metric)
    if not low <= number <= high:
        raise ValueRejected(f"{metric.name}: {value} lies outside the bounds [{low}, {high}]")
    return number


def finite(name: str, value: Any) -> float:
    """Raises ValueRejected for all that is no number, or none of this world."""
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueRejected(f"{name}: the value must be a finite number")
    return float(value)


def limits(metric: MetricPlan) -> tuple[float, float]:
    """The least and the greatest value, infinite where there is none."""
    return -math.inf if metric.low is None else metric.low, math.inf if metric.high is None else metric.high
