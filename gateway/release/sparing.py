"""A plan without the models that crash workers: the champion has their part. Pure.

The champion itself stays whatever it does: somebody must answer, and the supervisor waits longer each time.
"""

from __future__ import annotations

from collections.abc import Collection

from msgspec.structs import replace

from gateway.assignment.ranges import joined
from gateway.plan import EndpointPlan, Plan, Slot, VariantPlan
from gateway.telemetry.native import mark_of
from gateway.telemetry.status_page import Model


def model_of(endpoint: str, variant: VariantPlan) -> Model:
    """As a status page names it."""
    return Model(endpoint, variant.name, mark_of(variant.digest))


def sparing(plan: Plan, stopped: Collection[Model]) -> Plan:
    """The plan without the challengers that are stopped; the plan itself if there are none."""
    if not stopped:
        return plan
    return replace(plan, endpoints=tuple(_spared(endpoint, stopped) for endpoint in plan.endpoints))


def _spared(endpoint: EndpointPlan, stopped: Collection[Model]) -> EndpointPlan:
    gone = {one.name for one in endpoint.variants if one.role != "champion" and model_of(endpoint.name, one) in stopped}
    if not gone:
        return endpoint
    champion = endpoint.champion.name
    return replace(
        endpoint,
        variants=tuple(one for one in endpoint.variants if one.name not in gone),
        slots=joined(
            Slot(start=slot.start, variant=champion if slot.variant in gone else slot.variant)
            for slot in endpoint.slots
        ),
        kept=tuple(one for one in endpoint.kept if one.variant not in gone),
    )
