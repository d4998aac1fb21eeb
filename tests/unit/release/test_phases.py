"""What is published while models are being loaded: never a request to one that is not there, never a wait elsewhere."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.assignment.ranges import whole
from gateway.plan import (
    PREPARED_AT_ONCE,
    EndpointPlan,
    KeptPlan,
    Plan,
    Role,
    SegmentPlan,
    VariantPlan,
    decode,
    encode,
    shares,
)
from gateway.plan import SigningKey as Key
from gateway.release.phases import Staged, arriving, staged
from gateway.release.stages import split


def variant(name: str, role: Role = "challenger", digest: str = "", **more: Any) -> VariantPlan:
    digest = digest or f"{name}1"
    return VariantPlan(name=name, role=role, timeout=1.0, onnx=f"/models/{digest}.onnx", digest=digest, **more)


def upstream(name: str, role: Role = "challenger") -> VariantPlan:
    return VariantPlan(name=name, role=role, timeout=1.0, urls=(f"http://{name}:80",))


def endpoint(
    *variants: VariantPlan, name: str = "rank", experiment: str = "", traffic: dict[str, int] | None = None, **more: Any
) -> EndpointPlan:
    """Traffic in percent; what is not named is the champion's."""
    champion = next(one.name for one in variants if one.role == "champion")
    part = {name: Decimal(percent) / 100 for name, percent in (traffic or {}).items()}
    return EndpointPlan(
        name=name,
        protocol="oip",
        salt=experiment or name,
        experiment=experiment,
        stage="first" if experiment else "",
        unit_header="",
        variants=variants,
        slots=split(whole(champion), experiment or name, champion, part),
        segments=(SegmentPlan(name="origin", header="x-origin", values=("EWR", "JFK")),),
        **more,
    )


def plan(*endpoints: EndpointPlan, **more: Any) -> Plan:
    made = Plan(
        revision=0,
        config_digest="",
        as_of=0,
        endpoints=endpoints,
        keys=(Key(id=1, secret="00"),),
        pepper="00",
        max_body=1,
        **more,
    )
    assert decode(encode(made)) == made, "every plan here is one that a worker takes"
    return made


A = variant("a", "champion")
A2 = variant("a", "champion", "a2")
B, C = variant("b"), variant("c")
SERVED = plan(endpoint(A, B, traffic={"b": 20}), endpoint(A, B, name="other", traffic={"b": 20}))


def after(current: Plan | None, *wanted: EndpointPlan, ready: tuple[str, ...] = ()) -> Staged:
    """`ready` names variants that the current plan prepares."""
    prepare = current.prepare if current else ()
    keys = frozenset(one.key for one in prepare if one.variant.name in ready)
    following = staged(current, plan(*wanted), keys)
    assert decode(encode(following.plan)) == following.plan
    return following


def traffic(following: Staged, name: str = "rank") -> dict[str, int] | None:
    """In percent; None where the endpoint is not there yet."""
    found = [one for one in following.plan.endpoints if one.name == name]
    return {owner: round(100 * part / 2**64) for owner, part in shares(found[0].slots).items()} if found else None


def prepared(following: Staged) -> list[str]:
    return [f"{one.endpoint}/{one.variant.digest}" for one in following.plan.prepare]


def test_the_first_plan_is_served_as_it_is() -> None:
    wanted = endpoint(A, B, traffic={"b": 20})
    assert after(None, wanted) == Staged(plan(wanted), frozenset(), frozenset())


def test_what_serves_already_moves_at_once() -> None:
    following = after(SERVED, endpoint(A, B, traffic={"b": 50}))
    assert (traffic(following), prepared(following), following.held) == ({"a": 50, "b": 50}, [], frozenset())


def test_upstreams_need_no_preparation() -> None:
    following = after(SERVED, endpoint(A, upstream("c"), traffic={"c": 50}))
    assert (traffic(following), following.plan.prepare) == ({"a": 50, "c": 50}, ())


def test_a_new_model_is_prepared_and_then_brought_in() -> None:
    wanted = endpoint(A, B, C, traffic={"b": 20, "c": 40})
    waiting = after(SERVED, wanted)
    assert (traffic(waiting), prepared(waiting), waiting.held) == ({"a": 80, "b": 20}, ["rank/c1"], frozenset({"rank"}))
    assert after(waiting.plan, wanted).plan == waiting.plan, "nothing moves until it is there"
    there = after(waiting.plan, wanted, ready=("c",))
    assert (there.plan, there.held) == (plan(wanted), frozenset())
    assert arriving(waiting.plan, there) == {"rank"}


def test_other_endpoints_do_not_wait() -> None:
    wanted = endpoint(A, C, traffic={"c": 40})
    following = after(SERVED, wanted, endpoint(A, B, name="other"), endpoint(upstream("x", "champion"), name="more"))
    assert (traffic(following, "other"), traffic(following, "more")) == ({"a": 100}, {"x": 100})
    assert (prepared(following), following.held) == (["rank/c1"], frozenset({"rank"}))


def test_endpoints_wait_each_for_its_own_models() -> None:
    rank = endpoint(A, C, traffic={"c": 40})
    other = endpoint(A, C, name="other", traffic={"c": 40})
    waiting = after(SERVED, rank, other)
    assert prepared(waiting) == ["rank/c1", "other/c1"]
    ready = frozenset(one.key for one in waiting.plan.prepare if one.endpoint == "other")
    following = staged(waiting.plan, plan(rank, other), ready)
    assert (traffic(following, "other"), prepared(following)) == ({"a": 60, "c": 40}, ["rank/c1"])
    assert (following.held, arriving(waiting.plan, following)) == (frozenset({"rank"}), frozenset({"other"}))


def test_a_model_that_is_there_waits_with_the_one_that_is_not() -> None:
    wanted = endpoint(A, C, variant("d"), traffic={"c": 10, "d": 10})
    waiting = after(SERVED, wanted)
    assert after(waiting.plan, wanted, ready=("c",)).plan == waiting.plan
    assert traffic(after(waiting.plan, wanted, ready=("c", "d"))) == {"a": 80, "c": 10, "d": 10}


def test_a_new_endpoint_appears_when_its_models_are_there() -> None:
    wanted = endpoint(A, name="more")
    waiting = after(SERVED, *SERVED.endpoints, wanted)
    assert (traffic(waiting, "more"), prepared(waiting), waiting.held) == (None, ["more/a1"], frozenset({"more"}))
    assert traffic(after(waiting.plan, *SERVED.endpoints, wanted, ready=("a",)), "more") == {"a": 100}


def test_an_endpoint_that_leaves_leaves_at_once() -> None:
    following = after(SERVED, endpoint(A, C, traffic={"c": 10}))
    assert [one.name for one in following.plan.endpoints] == ["rank"]


def test_a_champion_with_another_file_is_answered_for_by_the_old_one() -> None:
    waiting = after(SERVED, endpoint(A2, B, traffic={"b": 20}))
    assert waiting.plan.endpoints == SERVED.endpoints[:1]
    assert prepared(waiting) == ["rank/a2"]


@pytest.mark.parametrize("more", [{"threads": 2}, {"max_batch": 1}])
def test_other_threads_or_batches_are_another_model(more: dict[str, Any]) -> None:
    wanted = endpoint(A, variant("b", **more), traffic={"b": 20})
    waiting = after(SERVED, wanted)
    assert prepared(waiting) == ["rank/b1"]
    assert not waiting.held, "the traffic is as it is wanted"
    there = after(waiting.plan, wanted, ready=("b",))
    assert (there.plan, arriving(waiting.plan, there)) == (plan(wanted), frozenset())


def test_a_rollback_waits_for_no_model_of_its_endpoint() -> None:
    waiting = after(SERVED, endpoint(A2, B, C, traffic={"b": 20, "c": 20}))
    back = after(waiting.plan, endpoint(A2, B, C))
    assert (traffic(back), back.held) == ({"a": 100}, frozenset())
    assert prepared(back) == ["rank/a2", "rank/c1"], "in case that it goes on"
    assert [one.digest for one in back.plan.endpoints[0].variants] == ["a1", "b1"]


def test_models_that_nobody_reaches_keep_nothing_waiting() -> None:
    following = after(SERVED, endpoint(A, B, C, traffic={"b": 50}))
    assert (traffic(following), prepared(following), following.held) == ({"a": 50, "b": 50}, ["rank/c1"], frozenset())
    assert [one.name for one in following.plan.endpoints[0].variants] == ["a", "b"]


@pytest.mark.parametrize(
    "how", [{"shadow": 1 << 60}, {"kept": (KeptPlan(segment="origin", value="EWR", variant="c"),)}]
)
def test_copies_and_kept_segments_reach_a_model_too(how: dict[str, Any]) -> None:
    following = after(SERVED, endpoint(A, B, C, traffic={"b": 50}, **how))
    assert [one.name for one in following.plan.endpoints[0].variants] == ["a", "b"]
    assert prepared(following) == ["rank/c1"]


def test_an_experiment_begins_only_with_all_its_models() -> None:
    wanted = endpoint(A, C, experiment="two", traffic={"c": 1})
    waiting = after(SERVED, wanted)
    assert (traffic(waiting), waiting.plan.endpoints[0].experiment) == ({"a": 80, "b": 20}, "")
    assert after(waiting.plan, wanted, ready=("c",)).plan.endpoints[0] == wanted


def test_challengers_of_an_experiment_that_has_left_get_no_traffic_meanwhile() -> None:
    """Nobody judges them any more."""
    current = plan(endpoint(A, B, experiment="one", traffic={"b": 10}, shadow=1 << 60))
    waiting = after(current, endpoint(A, C, experiment="two", traffic={"c": 1}))
    assert (traffic(waiting), waiting.held) == ({"a": 100}, frozenset({"rank"}))
    assert (waiting.plan.endpoints[0].experiment, waiting.plan.endpoints[0].shadow) == ("one", 0)


def test_decisions_about_what_serves_are_not_held_up_by_new_files() -> None:
    current = plan(endpoint(A, B, experiment="one", traffic={"b": 10}))
    won = replace(
        endpoint(variant("b", "champion", "b2"), replace(A2, role="challenger"), experiment="one"),
        kept=(KeptPlan(segment="origin", value="EWR", variant="a"), KeptPlan(segment="new", value="x", variant="a")),
    )
    following = after(current, won)
    assert (traffic(following), following.held) == ({"b": 100}, frozenset())
    served = following.plan.endpoints[0]
    assert {one.name: (one.digest, one.role) for one in served.variants} == {
        "a": ("a1", "challenger"),
        "b": ("b1", "champion"),
    }
    assert [one.segment for one in served.kept] == ["origin"], "a segment that the served plan cannot tell apart"


def test_where_the_new_champion_is_unknown_to_what_serves_it_stays_as_it_is() -> None:
    waiting = after(SERVED, endpoint(variant("z", "champion"), variant("b"), traffic={"b": 20}))
    assert waiting.plan.endpoints == SERVED.endpoints[:1]


def test_a_part_that_nobody_can_answer_for_is_the_champions() -> None:
    """Old and new files are never mixed: their signatures may differ."""
    waiting = after(SERVED, endpoint(A2, B, C, traffic={"b": 20, "c": 20}))
    assert traffic(waiting) == {"a": 80, "b": 20}
    owners = [slot.variant for slot in waiting.plan.endpoints[0].slots]
    assert all(one != following for one, following in pairwise(owners)), "neighbours of one owner are one range"


def test_many_models_are_prepared_a_few_endpoints_at_a_time() -> None:
    wanted = [endpoint(A, *(variant(f"v{n}") for n in range(20)), name=name, shadow=1) for name in ("rank", "other")]
    waiting = after(SERVED, *wanted)
    assert len(waiting.plan.prepare) == 20 <= PREPARED_AT_ONCE
    following = staged(waiting.plan, plan(*wanted), frozenset(one.key for one in waiting.plan.prepare))
    assert following.plan.endpoints[0] == wanted[0]
    assert {one.endpoint for one in following.plan.prepare} == {"other"}
