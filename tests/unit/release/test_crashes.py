"""Who is blamed for crashes, and what a plan is without them."""

from __future__ import annotations

from gateway.plan import Slot, VariantPlan
from gateway.release.crashes import WITHIN, Crashes
from gateway.release.phases import staged
from gateway.release.sparing import model_of, sparing
from gateway.telemetry.status_page import Model
from tests.integration.serving.local_worker import endpoint, http, plan

A, B, C = (Model("rank", name, number) for number, name in enumerate("abc", 1))


def blamed(*crashes: tuple[Model, ...], every: float = 1.0) -> set[Model]:
    known = Crashes()
    for number, models in enumerate(crashes):
        known.note(number * every, models, "SIGSEGV")
    return set(known.stopped)


def test_one_crash_blames_nobody() -> None:
    assert blamed((A,)) == set()


def test_who_ran_alone_twice_is_blamed_whatever_else_crashed() -> None:
    assert blamed((A,), (B,), (A,)) == {A}


def test_of_several_who_ran_only_those_who_were_always_there_are_blamed() -> None:
    assert blamed((A, B), (A, C)) == {A}
    assert blamed((A, B), (A, B)) == {A, B}
    assert blamed((A, B), (C,), (A, B)) == set()


def test_a_crash_in_which_no_model_ran_says_nothing() -> None:
    assert blamed((A, B), (), (A,)) == {A}


def test_crashes_that_lie_far_apart_are_accidents() -> None:
    assert blamed((A,), (A,), every=WITHIN + 1) == set()
    assert blamed((A,), (A,), every=WITHIN) == {A}


def test_a_clock_that_was_set_back_keeps_no_crash_of_its_future() -> None:
    known = Crashes()
    for at in (7200.0, 10.0, 11.0):
        known.note(at, (A,), "SIGSEGV")
    assert set(known.stopped) == {A}


def test_what_is_forgiven_or_replaced_is_tried_again() -> None:
    known = Crashes()
    for at in (0.0, 1.0):
        known.note(at, (A,), "SIGSEGV")
    assert "2 workers crashed" in known.stopped[A]
    known.keep([Model("rank", "a", 99)])
    assert not known.stopped
    known.note(2.0, (A,), "SIGSEGV")
    known.forgive("rank")
    assert not known.stopped
    assert known.note(3.0, (A,), "SIGSEGV") == []


def test_the_champion_has_the_part_of_a_challenger_that_is_stopped() -> None:
    whole = plan(endpoint(http("a", "champion", "http://a:1"), http("b", "challenger", "http://b:1"), share=0.3))
    (before,) = whole.endpoints
    gone = {model_of(before.name, one) for one in before.variants}
    (after,) = sparing(whole, gone).endpoints
    assert [one.name for one in after.variants] == ["a"]
    assert after.slots == (Slot(start=0, variant="a"),)
    assert sparing(whole, ()) is whole


def test_a_model_that_is_stopped_is_prepared_by_nobody() -> None:
    old = plan(endpoint(http("a", "champion", "http://a:1")))
    variant = VariantPlan(name="a", role="champion", timeout=1, onnx="/m.onnx", digest="d")
    new = plan(endpoint(variant))
    assert [one.variant for one in staged(old, new, ()).plan.prepare] == [variant]
    assert staged(old, new, (), {model_of("flight", variant)}).plan.prepare == ()
