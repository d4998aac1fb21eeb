"""Two phases: every living worker has loaded a model before a plan lets requests reach it. Pure.

An endpoint whose models are all there is served as wanted at once. The others wait, each by itself: meanwhile their
plan is as near to what is wanted as the models that serve now allow, and the new models are named to be prepared.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from msgspec.structs import replace

from gateway.assignment.ranges import joined, whole
from gateway.plan import PREPARED_AT_ONCE, BackendKey, EndpointPlan, Plan, PreparedPlan, Slot, models
from gateway.release.sparing import model_of
from gateway.telemetry.status_page import Model


class Staged(NamedTuple):
    """What can be published now of a plan that is wanted."""

    plan: Plan
    held: frozenset[str]  # endpoints whose traffic is not yet as it is wanted
    ready: Collection[BackendKey]  # the prepared models that this rests on


def staged(
    current: Plan | None, wanted: Plan, ready: Collection[BackendKey], stopped: Collection[Model] = ()
) -> Staged:
    """The plan to publish after `current`, given what is `ready` in every worker of what that one prepares.

    What is `stopped` is prepared by nobody, for it brings down who loads it; unless it serves already, as a champion
    does that crashes, and is only to be loaded in another way. Without a current plan nobody serves: a worker loads all
    that it needs before it is ready.
    """
    if current is None:
        return Staged(wanted, frozenset(), ready)
    here = {one.key for one in models(current.endpoints)} | set(ready)
    before = {endpoint.name: endpoint for endpoint in current.endpoints}
    served = [
        found
        for endpoint in wanted.endpoints
        if (found := _servable(before.get(endpoint.name), endpoint, here)) is not None
    ]
    shunned = set(stopped) - {model_of(one.endpoint, one.variant) for one in models(current.endpoints)}
    plan = replace(wanted, endpoints=tuple(served), prepare=_to_prepare(served, wanted, shunned))
    return Staged(plan, _differing(plan, wanted), ready)


def arriving(current: Plan | None, following: Staged) -> frozenset[str]:
    """The endpoints whose traffic has waited for a model and moves with the plan that follows."""
    if current is None:
        return frozenset()
    waited = {one.endpoint for one in current.prepare} - following.held
    return frozenset(waited & _differing(current, following.plan))


def _to_prepare(served: Iterable[EndpointPlan], wanted: Plan, shunned: Collection[Model]) -> tuple[PreparedPlan, ...]:
    """The models that are not served yet, whole endpoints at a time: one that lacks a model can use none."""
    used = {one.key for one in models(served)}
    prepare: list[PreparedPlan] = []
    for endpoint in wanted.endpoints:
        new = [one for one in models((endpoint,)) if one.key not in used]
        if shunned and any(model_of(one.endpoint, one.variant) in shunned for one in new):
            continue
        if len(prepare) + len(new) <= PREPARED_AT_ONCE:
            prepare += new
    return tuple(prepare)


def _differing(plan: Plan, other: Plan) -> frozenset[str]:
    """The endpoints of `other` that have other traffic there than in `plan`."""
    traffic = {endpoint.name: (endpoint.experiment, endpoint.slots) for endpoint in plan.endpoints}
    return frozenset(
        endpoint.name
        for endpoint in other.endpoints
        if traffic.get(endpoint.name) != (endpoint.experiment, endpoint.slots)
    )


def _servable(before: EndpointPlan | None, wanted: EndpointPlan, here: Collection[BackendKey]) -> EndpointPlan | None:
    """The endpoint with models that are here; None as long as nothing can answer for it."""
    missing = {one.variant.name for one in models((wanted,)) if one.key not in here}
    if not missing & _reached(wanted):
        return replace(wanted, variants=tuple(one for one in wanted.variants if one.name not in missing))
    if before is None:
        return None
    if before.experiment == wanted.experiment:
        return _steered(before, wanted)
    if before.experiment:
        # Nobody judges that experiment any more, so nobody would notice that its challengers do harm.
        return replace(before, slots=whole(before.champion.name), shadow=0, kept=())
    return before


def _reached(endpoint: EndpointPlan) -> set[str]:
    """The variants that requests, or copies of them, may reach."""
    if endpoint.shadow:
        return {variant.name for variant in endpoint.variants}
    owners = {slot.variant for slot in endpoint.slots} | {one.variant for one in endpoint.kept}
    return owners | {endpoint.champion.name}


def _steered(before: EndpointPlan, wanted: EndpointPlan) -> EndpointPlan:
    """The models that serve now, under the roles and the split that are wanted: a rollback waits for no load.

    Only theirs: new ones may have another signature. A variant that is new has nothing that could serve it; its part
    is the champion's.
    """
    known = {variant.name: variant for variant in before.variants}
    segments = {segment.name for segment in before.segments}
    champion = wanted.champion.name
    if champion not in known:
        return before
    return replace(
        before,
        variants=tuple(replace(known[one.name], role=one.role) for one in wanted.variants if one.name in known),
        slots=joined(
            Slot(start=slot.start, variant=slot.variant if slot.variant in known else champion) for slot in wanted.slots
        ),
        stage=wanted.stage,
        shadow=wanted.shadow,
        kept=tuple(one for one in wanted.kept if one.variant in known and one.segment in segments),
    )
