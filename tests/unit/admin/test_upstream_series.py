"""What is told of the replicas of upstreams: of those that somebody uses."""

from __future__ import annotations

from gateway.admin.samples import Totals, told_of_upstreams
from gateway.telemetry import metrics
from tests.integration.serving.local_worker import endpoint, http, plan

AVAILABLE = metrics.UPSTREAM_AVAILABLE.name


def test_a_replica_that_has_left_the_config_is_not_told_of() -> None:
    served = plan(endpoint(http("a", "champion", "http://one", "http://two"), name="rank", protocol="http"))
    here: Totals = {(AVAILABLE, ("rank", "a", url)): (1,) for url in ("http://one", "http://two")}
    gone: Totals = {(AVAILABLE, ("rank", "a", "http://three")): (0,), (AVAILABLE, ("rank", "b", "http://one")): (0,)}
    others: Totals = {(metrics.BREAKER_OPENED.name, ("rank", "b")): (3,)}
    assert told_of_upstreams(here | gone | others, served) == here | others
    assert told_of_upstreams(here | others, None) == others
