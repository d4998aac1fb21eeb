"""What the examples, and a config with every kind of metric, become: definition, rules, thresholds and plan."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from msgspec.structs import asdict, replace

from gateway import plan as plans
from gateway.assignment.ranges import whole, width
from gateway.config.load import LoadedConfig, load
from gateway.evidence.definition import Definition, MetricDefinition
from gateway.plan import (
    HASH_SPACE,
    CapturePlan,
    CovariatePlan,
    EndpointPlan,
    KeptPlan,
    MetricPlan,
    SigningKey,
)
from gateway.release.artifacts import Artifacts
from gateway.release.compile import compile_plan, definition, rules, thresholds
from gateway.release.state import ReleaseState

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIG = Path(__file__).parents[3] / "config"
HOUR, DAY = 3_600_000_000, 86_400_000_000  # microseconds


class NoFiles(Artifacts):
    """Artifacts whose digest is the name of the file."""

    def digest(self, variant: Any) -> str:
        return "" if variant.onnx is None else str(variant.onnx.stem)

    def place(self, variant: Any) -> str:
        return str(variant.onnx or "")


def defined(loaded: LoadedConfig, name: str, champion: str = "") -> Definition:
    endpoint = loaded.config.endpoints[name]
    return definition(name, endpoint, champion or endpoint.champion, NoFiles())


def running(loaded: LoadedConfig) -> dict[str, ReleaseState]:
    return {
        name: ReleaseState(
            endpoint=name,
            champion=endpoint.champion,
            slots=whole(endpoint.champion),
            status="running" if endpoint.experiment else "fixed",
            experiment=endpoint.experiment.id if endpoint.experiment else "",
        )
        for name, endpoint in loaded.config.endpoints.items()
    }


def planned(loaded: LoadedConfig, states: dict[str, Any]) -> dict[str, EndpointPlan]:
    plan = compile_plan(loaded.config, loaded.digest, states, NoFiles(), (SigningKey(id=1, secret="00"),), "00")
    assert plans.decode(plans.encode(plan)) == plan
    return {endpoint.name: endpoint for endpoint in plan.endpoints}


@pytest.mark.parametrize(("written", "connections"), [("1000", 1000), ("auto", 0)])
def test_workers_learn_what_they_take_from_clients(
    accepted: Callable[[str], LoadedConfig], valid: str, written: str, connections: int
) -> None:
    loaded = accepted(valid.replace("max_connections: 1000", f"max_connections: {written}"))
    states = running(loaded)
    plan = compile_plan(loaded.config, loaded.digest, states, NoFiles(), (SigningKey(id=1, secret="00"),), "00")
    assert (plan.max_body, plan.max_connections, plan.max_requests) == (16 << 20, connections, 256)
    assert plan.trusted_proxies == ("10.0.0.0/8", "::1/128", "unix")


def differences(metric: MetricDefinition) -> dict[str, Any]:
    """The fields that are not as they would be by default."""
    plain = asdict(MetricDefinition(name=metric.name, type=metric.type, source=metric.source, increase=metric.increase))
    return {key: value for key, value in asdict(metric).items() if value != plain[key]}


@pytest.fixture
def loaded(accepted: Callable[[str], LoadedConfig], rich: str) -> LoadedConfig:
    return accepted(rich)


METRICS: dict[str, dict[str, Any]] = {
    "revenue": {"window_us": 24 * HOUR, "grace_us": HOUR, "missing": "zero", "aggregate": "sum", "scale": "winsorised"},
    "orders": {
        "high": 5.0,
        "window_us": 12 * HOUR,
        "grace_us": HOUR // 2,
        "missing": "zero",
        "aggregate": "sum",
        "relative_margin": 0.025,
    },
    "items": {
        "high": 50.0,
        "window_us": 12 * HOUR,
        "grace_us": HOUR // 2,
        "max_missing": 0.1,
        "aggregate": "max",
    },
    "basket": {
        "window_us": 12 * HOUR,
        "grace_us": HOUR // 2,
        "missing": "zero",
        "numerator": "items",
        "denominator": "orders",
        "signal": True,
    },
    "stars": {"high": 5.0, "window_us": HOUR, "aggregate": "max", "margin": 0.5},
    "returned": {"window_us": 7 * DAY, "missing": "zero", "signal": True},
    "latency": {"limit_us": 1_000_000, "relative_margin": 1.5},
    "errors": {"relative_margin": 0.2, "floor": 0.002},
    "loss": {"high": 10.0, "window_us": 6 * HOUR, "loss": "log_loss"},
    "minutes": {"high": 660.0, "window_us": 6 * HOUR, "loss": "absolute_error", "margin": 100.0},
}


def test_every_metric_becomes_what_the_statistics_need(loaded: LoadedConfig) -> None:
    for endpoint in ("shop", "flights"):
        for metric in defined(loaded, endpoint).metrics:
            found = differences(metric)
            if metric.missing == "zero" or metric.source == "gateway":
                assert found.pop("max_missing") == 1.0  # nothing is ever missing
            assert found == METRICS[metric.name], metric.name
            assert metric.increase == (metric.name in ("revenue", "orders", "items", "basket", "stars"))


def test_every_bet_of_every_metric_can_be_made(loaded: LoadedConfig) -> None:
    for endpoint in ("shop", "flights"):
        experiment = defined(loaded, endpoint)
        for metric in experiment.metrics:
            assert experiment.bets(metric)
            assert experiment.v_opt(metric) > 0


def test_an_experiment_becomes_a_definition(loaded: LoadedConfig) -> None:
    shop, flights = defined(loaded, "shop"), defined(loaded, "flights")
    assert (shop.id, shop.endpoint, shop.champion, shop.challengers) == ("personal", "shop", "old", ("third", "new"))
    assert (shop.objective, shop.expected_effect, shop.min_effect) == ("revenue", 0.02, 0.005)
    assert (shop.segments, shop.segment_values) == (("country",), (("DE", "FR"),))
    assert shop.answer_within_us == 307_000_000  # slowest challenger, champion, a stream, and a second
    assert (shop.require_min_effect, shop.covariates, shop.paired) == (True, 2, False)
    assert (shop.cycle_us, shop.holdback, shop.aa, shop.digests) == (DAY, True, False, ("", "", ""))
    assert (flights.require_min_effect, flights.covariates, flights.paired) == (False, 0, True)
    assert (flights.cycle_us, flights.holdback, flights.aa, flights.digests) == (
        0,
        False,
        True,
        ("logistic", "boosted"),
    )


def test_the_champion_of_the_release_counts_and_not_the_role_in_the_file(loaded: LoadedConfig) -> None:
    assert defined(loaded, "shop", "new").challengers == ("third", "old")
    assert defined(loaded, "flights", "b").digests == ("boosted", "logistic")


def test_what_may_be_edited_becomes_rules_and_thresholds(loaded: LoadedConfig) -> None:
    shop, flights = (loaded.config.endpoints[name] for name in ("shop", "flights"))
    assert [stage.share for stage in rules(shop).stages] == [Decimal("0.05"), Decimal("0.49")]
    assert (rules(shop).holdback, rules(shop).watch_us) == (Decimal("0.02"), 30 * DAY)
    assert (rules(shop).segment_harm, thresholds(shop).run_length) == ("restrict", 1000.0)
    assert (rules(flights).holdback, rules(flights).watch_us) == (Decimal(0), 0)
    assert (rules(flights).segment_harm, thresholds(flights).run_length) == ("veto", 1e6)


def test_workers_learn_what_may_be_posted_and_what_to_read(loaded: LoadedConfig) -> None:
    endpoints = planned(loaded, running(loaded))
    shop, flights = endpoints["shop"], endpoints["flights"]
    assert {metric.name: (metric.low, metric.high) for metric in (*shop.metrics, *flights.metrics)} == {
        "revenue": (None, None),
        "orders": (0.0, None),
        "items": (0.0, None),
        "basket": (0.0, 1.0),
        "stars": (0.0, 5.0),
        "returned": (0.0, 1.0),
        "latency": (0.0, 1.0),
        "errors": (0.0, 1.0),
        "loss": (0.0, 1.0),
        "minutes": (-60.0, 600.0),
    }
    assert shop.metrics[3] == MetricPlan(name="basket", type="ratio", source="outcome")
    assert shop.covariates == (
        CovariatePlan(name="past-spend", header="x-past-spend", low=0.0, high=500.0),
        CovariatePlan(name="age", header="x-age", low=18.0, high=99.0),
    )
    assert (shop.capture, shop.shadow, shop.kept) == (None, 0, ())
    assert flights.capture == CapturePlan(output="probability", index=1)
    assert flights.shadow == HASH_SPACE // 8


@pytest.mark.parametrize("status", ["promoted", "rolled_back", "inconclusive"])
def test_nothing_is_copied_when_the_experiment_is_over(loaded: LoadedConfig, status: Any) -> None:
    states = running(loaded)
    states["flights"] = replace(states["flights"], status=status)
    flights = planned(loaded, states)["flights"]
    assert flights.shadow == 0
    assert flights.capture is not None  # outcomes of what was answered before still come


def test_all_units_may_be_shadowed(accepted: Callable[[str], LoadedConfig], rich: str) -> None:
    loaded = accepted(rich.replace("shadow: 12.5%", "shadow: 100%"))
    assert planned(loaded, running(loaded))["flights"].shadow == HASH_SPACE


def test_segments_that_are_kept_go_into_the_plan(loaded: LoadedConfig) -> None:
    france = KeptPlan(segment="country", value="FR", variant="old")
    dropped = (
        KeptPlan(segment="city", value="Rome", variant="old"),
        KeptPlan(segment="country", value="DE", variant="x"),
    )
    states = running(loaded)
    states["shop"] = replace(states["shop"], kept=(france, *dropped))
    assert planned(loaded, states)["shop"].kept == (france,)


@pytest.mark.parametrize("example", sorted(CONFIG.glob("*.yaml")), ids=lambda example: example.name)
def test_every_example_can_be_defined_and_planned(example: Path) -> None:
    loaded = load(example)
    assert planned(loaded, running(loaded)).keys() == loaded.config.endpoints.keys()
    for name, endpoint in loaded.config.endpoints.items():
        if endpoint.experiment is not None:
            experiment = defined(loaded, name)
            assert all(experiment.bets(metric) for metric in experiment.metrics)
            assert rules(endpoint).stages


def test_the_example_with_many_challengers() -> None:
    loaded = load(CONFIG / "many-challengers.yaml")
    found = defined(loaded, "flight-delay")
    assert found.arms == ("logistic", "boosted", "twin")
    assert found.digests == found.arms
    assert (found.require_min_effect, found.cycle_us) == (True, DAY)
    assert found.segments == ("origin", "weekend")
    assert [metric.name for metric in found.metrics if metric.signal] == ["complaints"]
    assert found.metric("complaints").high == 3.0
    rebooked = found.metric("rebooked")
    assert (rebooked.relative_margin, rebooked.floor, rebooked.missing) == (0.05, 0.002, "zero")
    assert rules(loaded.config.endpoints["flight-delay"]).segment_harm == "restrict"


def test_the_example_with_a_shadow() -> None:
    loaded = load(CONFIG / "shadow.yaml")
    found = defined(loaded, "flight-delay")
    assert (found.paired, found.objective) == (True, "brier")
    assert (found.metric("brier").loss, found.metric("brier").span) == ("brier", 1.0)
    assert (found.metric("surprise").loss, found.metric("surprise").signal) == ("log_loss", True)
    endpoint = planned(loaded, running(loaded))["flight-delay"]
    assert endpoint.capture == CapturePlan(output="probability", index=0)
    assert endpoint.shadow == width(Decimal("0.2"))


def test_the_example_about_revenue() -> None:
    loaded = load(CONFIG / "revenue.yaml")
    found = defined(loaded, "search-rank")
    assert (found.covariates, found.holdback, found.cycle_us) == (1, True, 7 * DAY)
    revenue, basket = found.metric("revenue"), found.metric("basket")
    assert (revenue.scale, revenue.aggregate, revenue.missing) == ("winsorised", "sum", "zero")
    assert (basket.numerator, basket.denominator, basket.within_us) == ("items", "orders", 25 * HOUR)
    assert {metric.name: metric.relative_margin for metric in found.guardrails} == {
        "errors": 0.2,
        "latency": 0.1,
        "orders": 0.02,
    }
    assert found.metric("latency").by_quantiles
    assert rules(loaded.config.endpoints["search-rank"]).holdback == Decimal("0.02")


def test_the_example_of_one_challenger_waits_for_a_day() -> None:
    assert defined(load(CONFIG / "flight-delay.yaml"), "flight-delay").cycle_us == DAY
    assert defined(load(CONFIG / "demo.yaml"), "flight-delay").cycle_us == 0


def test_authorities_of_an_upstream_reach_the_worker_as_an_absolute_path(
    accepted: Callable[[str], LoadedConfig], valid: str, path: Path
) -> None:
    trustme.CA().cert_pem.write_to_path(str(path.parent / "ca.pem"))
    loaded = accepted(valid.replace("url: http://rank-b:8000", "url: https://rank-b:8000\n        ca: ca.pem"))
    variants = {one.name: one for one in planned(loaded, running(loaded))["search-rank"].variants}
    assert (variants["a"].ca, variants["b"].ca) == ("", str(path.parent / "ca.pem"))


def test_what_is_said_of_a_model_reaches_the_worker(accepted: Callable[[str], LoadedConfig], valid: str) -> None:
    given = "onnx: models/boosted.onnx\n        threads: 2\n        max_batch: 1\n"
    loaded = accepted(valid.replace("onnx: models/boosted.onnx\n", given))
    variants = {one.name: one for one in planned(loaded, running(loaded))["flight-delay"].variants}
    assert (variants["boosted"].threads, variants["boosted"].max_batch) == (2, 1)
    assert (variants["logistic"].threads, variants["logistic"].max_batch) == (1, 64)
