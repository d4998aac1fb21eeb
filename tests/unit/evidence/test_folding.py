"""When a vote closes in a metric, and with which value it is folded."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from gateway.evidence.definition import decode, encode
from gateway.evidence.report import WORST
from gateway.stats import ScoreCell
from tests.unit.evidence.world import BRIER, ERRORS, LATENCY, SECOND, World, definition

Worlds = Callable[..., World]


def cell(world: World, metric: str, segment: str = "", arm: int = 1) -> ScoreCell:
    found = world.engine.evidence["exp"].find("cell", str(arm), metric, segment)
    assert isinstance(found, ScoreCell)
    return found


def means(world: World, metric: str, segment: str = "") -> tuple[float, float]:
    return cell(world, metric, segment).means


def folded(world: World) -> dict[str, int]:
    found: dict[str, int] = world.store.cursors("exp")
    return found


def test_a_gateway_metric_closes_with_the_completion(world: World) -> None:
    for number, error in enumerate(("", "deadline", "")):
        decision = world.assign(number, True)
        world.complete(decision, error=error, first_byte_us=300_000 if number == 2 else 1_000)
    world.step(0.1)
    assert folded(world) == {"errors": 3, "latency": 3}
    assert means(world, "errors")[1] == pytest.approx(2 / 3)
    assert means(world, "latency")[1] == pytest.approx(1 / 3)


def test_the_first_open_request_stops_the_fold(world: World) -> None:
    hanging = world.assign("hangs", True)
    world.complete(world.assign("answers", False))
    world.step(1.0)
    assert folded(world) == {}
    world.complete(hanging)
    world.step(0.1)
    assert folded(world)["errors"] == 2


def test_without_completion_in_time_the_request_has_failed(world: World) -> None:
    decision = world.assign("hangs", True)
    world.step(1.999_999)
    assert folded(world) == {}
    world.step(0.000_001)
    assert folded(world) == {"errors": 1, "latency": 1}
    world.complete(decision)
    world.step(1.0)
    assert means(world, "errors")[1] == means(world, "latency")[1] == 0.0


def test_a_completion_after_the_deadline_changes_nothing_even_if_it_was_shipped_first(world: World) -> None:
    decision = world.assign("slow", True)
    world.pass_time(2.0)
    world.complete(decision)
    world.step(1.0)
    assert means(world, "errors")[1] == 0.0


def test_an_outcome_metric_closes_with_its_window(world: World) -> None:
    decision = world.assign("u", True)
    world.complete(decision)
    world.outcome(decision, 0.25)
    world.step(59.999_999)
    assert "brier" not in folded(world)
    world.step(0.000_001)
    assert folded(world)["brier"] == 1
    assert means(world, "brier")[1] == 0.75


def test_an_outcome_before_its_assignments_shipment_joins(worlds: Worlds) -> None:
    world = worlds(shards=2)
    decision = world.assign("u", True, shard=0)
    world.engine._shipper.cursors.clear()
    path = world.folder / "spool" / "00000001.requests.000000"
    hidden = path.rename(path.with_name("hidden"))  # the outcome overtakes: its stream is read first
    world.outcome(decision, 0.25, shard=1)
    world.outcome(decision, 0.25, shard=1)
    world.shards[1].heartbeat()
    world.shards[0].outcomes.heartbeat()
    world.step()
    assert world.store.exposures([decision]) == {}
    assert world.counters == {("", "duplicate"): 1}
    hidden.rename(path)
    world.settle()
    assert means(world, "brier")[1] == 0.75


def test_what_comes_after_the_window_is_late_and_counted(world: World) -> None:
    decision = world.assign("u", True)
    world.complete(decision)
    world.pass_time(60.0)
    world.outcome(decision, 0.25)
    world.step(1.0)
    assert world.report.missing == (0.0, 1.0)
    assert world.counters == {("b", "late"): 1}


def test_the_first_value_wins_and_the_others_are_counted(world: World) -> None:
    decision = world.assign("u", True)
    world.complete(decision)
    for value in (0.25, 0.25, 0.75):
        world.outcome(decision, value)
    world.step(1.0)
    world.outcome(decision, 0.5)
    world.reject(decision)
    world.step(60.0)
    assert means(world, "brier")[1] == 0.75
    assert world.counters == {("b", "duplicate"): 1, ("b", "conflict"): 2, ("b", "rejected"): 1}


def test_a_missing_label_is_left_out_and_filled_with_the_worst(world: World) -> None:
    for number, value in enumerate((0.0, None, 0.0, None)):
        world.whole(number, number % 2 == 0, value)
    world.whole(4, False, 0.0)
    world.settle()
    assert cell(world, "brier").counts == (1, 2)
    assert cell(world, "brier").means == (1.0, 1.0)
    assert cell(world, "brier", WORST).counts == (3, 2)
    assert cell(world, "brier", WORST).means == pytest.approx((1 / 3, 1.0))
    assert world.report.missing == pytest.approx((2 / 3, 0.0))
    assert world.report.worst_fill_needed
    assert world.engine.evidence["exp"].find("ratio", "1", "brier").n == 3


def test_a_missing_event_is_no_event(worlds: Worlds) -> None:
    bought = replace(BRIER, name="bought", type="binary", increase=True, missing="zero", max_missing=1.0)
    world = worlds(define=definition(bought, ERRORS, objective="bought"))
    for number in range(200):
        world.assign(number, number % 2 == 0)
        if number % 2 == 0:
            world.outcome((1 << 40) | (number + 1), 1.0, metric="bought")
    world.settle()
    report = world.report
    assert means(world, "bought") == (0.0, 1.0)
    assert not report.worst_fill_needed
    # Only the challenger sells: that is a result, and no sign of a broken split.
    assert report.test("bought", "sample_ratio") is None
    assert not report.sample_ratio_alarm


def test_lost_labels_of_one_variant_raise_the_alarm(world: World) -> None:
    for number in range(600):
        world.whole(number, number % 2 == 0, 0.5 if number % 2 == 0 or number % 4 == 1 else None)
    world.settle()
    report = world.report
    assert report.sample_ratio_alarm
    assert report.verdict == "invalid"
    assert report.test("brier", "sample_ratio").met  # type: ignore[union-attr]
    assert not report.test("assigned", "sample_ratio").met  # type: ignore[union-attr]


def test_a_value_out_of_bounds_is_never_folded(world: World) -> None:
    for number, value in enumerate((7.0, -0.1, 1.0, 0.0)):
        world.whole(number, True, value)
    world.settle()
    assert cell(world, "brier").counts == (0, 2)
    assert world.report.missing == (0.0, 0.5)


def test_segments_hold_the_same_units_again(world: World) -> None:
    for number, origin in enumerate(("EWR", "JFK", "EWR", "other")):
        world.whole(number, number % 2 == 0, 0.5, origin=origin)
    world.settle()
    assert cell(world, "brier", "origin=EWR").counts == (0, 2)
    assert cell(world, "brier", "origin=JFK").counts == (1, 0)
    assert cell(world, "brier", "origin=other").counts == (1, 0)
    assert world.engine.evidence["exp"].segments_of(1, BRIER) == ["origin=EWR", "origin=JFK", "origin=other"]


def test_stages_are_told_apart(world: World) -> None:
    for number, stage in enumerate(("s1", "s1", "s2")):
        world.whole(number, number == 2, 0.5, stage=stage)
    world.settle()
    assert world.report.matured == {"s1": (2, 0), "s2": (0, 1)}


def test_a_definition_survives_the_store() -> None:
    one = definition(BRIER, replace(ERRORS, margin=0.25), LATENCY)
    assert decode(encode(one)) == one
    assert [metric.name for metric in one.guardrails] == ["errors", "latency"]
    assert BRIER.effect(0.1) == -0.1
    assert replace(BRIER, increase=True, high=2.0).effect(0.1) == 0.2
    assert replace(BRIER, grace_us=SECOND).within_us == 61 * SECOND


def test_a_long_queue_is_folded_in_bounded_steps(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.evidence.closing.MOST", 4)
    for number in range(10):
        world.whole(number, True, 0.5)
    assert world.step(100.0) == 12
    assert folded(world) == {"brier": 4, "errors": 4, "latency": 4}
    world.settle()
    assert folded(world) == {"brier": 10, "errors": 10, "latency": 10}


def test_an_outcome_that_is_no_number_is_rejected_and_stops_nobody(world: World) -> None:
    decision = world.whole("u", True, float("nan"))
    world.outcome(decision, 0.25)
    world.settle()
    assert world.counters == {("b", "rejected"): 1}
    assert means(world, "brier")[1] == 0.75


def test_a_failed_shadow_has_lost_its_pair(worlds: Worlds) -> None:
    """A challenger that was asked and failed; one that was never asked; a champion that failed."""
    scored = replace(BRIER, type="score")
    world = worlds(define=replace(definition(scored, ERRORS), paired=True))
    requests: list[tuple[str, str, float | None, dict[str, float | None]]] = [
        ("a", "", 0.5, {"b": 0.75}),
        ("a", "", 0.5, {"b": None}),
        ("a", "", 0.5, {}),
        ("b", "deadline", None, {"a": 0.5}),
    ]
    for number, (served, error, prediction, shadows) in enumerate(requests):
        decision = world.assign(number, served)
        world.complete(decision, served=served, error=error, prediction=prediction)
        for variant, said in shadows.items():
            world.shadow(decision, variant, said)
        world.outcome(decision, 1.0)
    failed = world.assign("champion fails", False)
    world.complete(failed, served="a", error="deadline")
    world.shadow(failed, "b", 1.0)
    world.outcome(failed, 1.0)
    world.settle()
    pairs = world.engine.evidence["exp"].find("cell", "1", "brier", "")
    assert pairs.n == 3
    assert pairs.mean == pytest.approx((0.25 - 0.0625 + 2 * (0.25 - 1.0)) / 3)
