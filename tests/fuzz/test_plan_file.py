"""A plan file is read whole, or refused with a PlanError."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given

from gateway import plan as plans
from gateway.plan import EndpointPlan, MetricPlan, Plan, PlanError, SegmentPlan, SigningKey, Slot, VariantPlan
from tests.fuzz.mutations import documents, edited
from tests.fuzz.profile import FUZZ, frugal

PLAN = Plan(
    revision=3,
    config_digest="d" * 64,
    as_of=2,
    endpoints=(
        EndpointPlan(
            name="search",
            protocol="http",
            salt="exp",
            experiment="exp",
            stage="half",
            unit_header="x-user-id",
            variants=(
                VariantPlan(name="a", role="champion", timeout=1.0, urls=("http://a",), headers=(("x", "y"),)),
                VariantPlan(name="b", role="challenger", timeout=1.0, urls=("http://b",)),
            ),
            slots=(Slot(start=0, variant="a"), Slot(start=1 << 63, variant="b")),
            segments=(SegmentPlan(name="origin", header="x-origin", values=("EWR",)),),
            metrics=(MetricPlan(name="errors", type="binary", source="gateway"),),
        ),
    ),
    keys=(SigningKey(id=1, secret="11" * 32),),
    pepper="22" * 32,
    max_body=1 << 20,
)
TEXT = plans.encode(PLAN)
WORDS = ["name", "role", "champion", "variants", "slots", "start", "keys", "schema", "a", "b", "http", "half"]


def taken(data: bytes) -> None:
    try:
        with frugal():
            plan = plans.decode(data)
    except PlanError:
        return
    assert plans.decode(plans.encode(plan)) == plan
    for endpoint in plan.endpoints:
        assert sum(plans.shares(endpoint.slots).values()) == plans.HASH_SPACE
        assert endpoint.champion in endpoint.variants


def test_what_is_written_is_what_is_read() -> None:
    assert plans.decode(TEXT) == PLAN


@FUZZ
@given(edited([TEXT]))
def test_bytes_of_a_plan_may_be_anything(data: bytes) -> None:
    taken(data)


@FUZZ
@given(documents([json.loads(TEXT)], WORDS))
def test_values_of_a_plan_may_be_anything(document: Any) -> None:
    taken(json.dumps(document).encode())


def test_a_plan_cut_anywhere_is_refused() -> None:
    for size in range(len(TEXT.rstrip())):
        try:
            plans.decode(TEXT[:size])
        except PlanError:
            continue
        raise AssertionError(f"the first {size} bytes were taken")


def test_a_plan_nested_too_deeply_is_refused() -> None:
    taken(b"[" * 1_000_000)
    taken(b'{"endpoints":' * 100_000)
