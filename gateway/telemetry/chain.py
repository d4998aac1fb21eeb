"""How long a fact takes to become a split that is served: the steps of the control process, each as a histogram."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.telemetry.metrics import HISTOGRAM_SLOTS, latency_slot


@dataclass(slots=True)
class Histogram:
    """Observations in microseconds, in the slots of `metrics.LATENCY_BOUNDS_US`; the last slot is their sum."""

    slots: list[int] = field(default_factory=lambda: [0] * HISTOGRAM_SLOTS)

    def observe(self, microseconds: float) -> None:
        held = max(0, round(microseconds))
        self.slots[latency_slot(held)] += 1
        self.slots[-1] += held


@dataclass(slots=True)
class Chain:
    """From an appended fact to workers that serve what was decided."""

    shipped: Histogram = field(default_factory=Histogram)  # age of the oldest fact of a shipment when it was committed
    decided: Histogram = field(default_factory=Histogram)  # from there until the releases were judged by it
    taken: Histogram = field(default_factory=Histogram)  # from a plan's file until every worker of the node served it
    followed: Histogram = field(default_factory=Histogram)  # from another node's decision until this one's plan
