"""How much disk an installation takes: what each request leaves, as measured, times what a config asks for.

Measured on a SQLite file of 40,000 requests with names as long as the demo's (`tests/unit/forgetting/test_volume.py`
measures again); indexes are in it. What requests have in common is written once and costs nothing here.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from gateway.config.schema import Config, Endpoint

DAY: Final = 86_400  # seconds
# Bytes in the store: of each fact; of a unit, of each of its votes, and of what that counts in one metric.
ASSIGNMENT, COMPLETION, OUTCOME, SHADOW = 54, 53, 50, 49
UNIT, VOTE, SETTLED = 86, 100, 46
STEP = 200  # of a fold step, of which there are ten a second while something happens
# Bytes in the spools.
SPOOLED_REQUEST, SPOOLED_OUTCOME, SPOOLED_SHADOW = 193, 88, 62


class Volume(NamedTuple):
    """Bytes, if all requests are for one endpoint, each a unit of its own with an outcome for every metric."""

    endpoint: str
    facts: float  # in the store, of a day
    votes: float  # in the store, of a day: these stay
    spools: float  # in files, of a day

    def held(self, requests_seconds: float) -> float:
        """Of facts at most: a day goes when it is over for so long."""
        return self.facts * (requests_seconds / DAY + 1)


def expected(config: Config, rate: float) -> Volume:
    """At so many requests a second, of the endpoint that takes the most."""
    return max((_of(name, endpoint, rate) for name, endpoint in config.endpoints.items()), key=lambda one: sum(one[1:]))


def _of(name: str, endpoint: Endpoint, rate: float) -> Volume:
    experiment = endpoint.experiment
    outcomes = sum(metric.source != "gateway" and metric.numerator is None for metric in endpoint.metrics.values())
    sampled = experiment.shadow if experiment is not None else None
    shadows = float(sampled) * (len(endpoint.variants) - 1) if sampled is not None else 0.0
    facts = ASSIGNMENT + COMPLETION + OUTCOME * outcomes + SHADOW * shadows
    votes = UNIT + VOTE + SETTLED * len(endpoint.metrics) if experiment is not None else 0
    spooled = SPOOLED_REQUEST + SPOOLED_OUTCOME * outcomes + SPOOLED_SHADOW * shadows
    return Volume(name, facts * rate * DAY, (votes * rate + STEP * min(rate, 10.0)) * DAY, spooled * rate * DAY)
