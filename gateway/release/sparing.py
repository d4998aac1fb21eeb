"""A plan without the models that crash workers: the champion has their part. Pure.

The champion itself stays whatever it does: somebody must answer, and the supervisor waits longer each time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec.structs import replace

from gateway.assignment.ranges import joined, whole
from gateway.config.schema import Endpoint
from gateway.evidence.report import WATCH
from gateway.plan import EndpointPlan, Plan, Slot, VariantPlan
from gateway.release.artifacts import Artifacts
from gateway.release.halts import Halt
from gateway.telemetry.native import mark_of
from gateway.telemetry.status_page import Model


def model_of(endpoint: str, variant: VariantPlan) -> Model:
    """As a status page names it."""
    return Model(endpoint, variant.name, mark_of(variant.digest))


def models_of(name: str, endpoint: Endpoint, artifacts: Artifacts) -> dict[Model, str]:
    """The variants of an endpoint that are models in the process, by the names that status pages give them."""
    digests = {variant: artifacts.digest(one) for variant, one in endpoint.variants.items()}
    return {Model(name, variant, mark_of(digest)): variant for variant, digest in digests.items() if digest}


def crashing(name: str, endpoint: Endpoint, artifacts: Artifacts, stopped: Mapping[Model, str]) -> dict[str, str]:
    """By variant of an endpoint: why its model is stopped."""
    if not stopped:
        return {}
    models = models_of(name, endpoint, artifacts).items()
    return {variant: stopped[model] for model, variant in models if model in stopped}


def sparing(plan: Plan, stopped: Collection[Model]) -> Plan:
    """The plan without the challengers that are stopped; the plan itself if there are none."""
    if not stopped:
        return plan
    return replace(plan, endpoints=tuple(_spared(endpoint, stopped) for endpoint in plan.endpoints))


def halted(plan: Plan, halts: Collection[Halt]) -> Plan:
    """The plan without what was stopped on this node."""
    return replace(plan, endpoints=tuple(_halted(endpoint, halts) for endpoint in plan.endpoints)) if halts else plan


def _halted(endpoint: EndpointPlan, halts: Collection[Halt]) -> EndpointPlan:
    concern = [one for one in halts if (one.endpoint, one.experiment) == (endpoint.name, endpoint.experiment)]
    if not concern:
        return endpoint
    if endpoint.stage == WATCH:
        champion = endpoint.champion.name
        return _back_home(endpoint) if any(one.variant in ("", champion) for one in concern) else endpoint
    named = {one.variant for one in concern}
    return _without(endpoint, {one.name for one in endpoint.variants if "" in named or one.name in named})


def _back_home(endpoint: EndpointPlan) -> EndpointPlan:
    """After a promotion it is the champion that is stopped; who keeps a holdback was it before."""
    former = next((slot.variant for slot in endpoint.slots if slot.variant != endpoint.champion.name), "")
    if not former:
        return endpoint
    return replace(
        endpoint,
        variants=tuple(
            replace(one, role="champion" if one.name == former else "challenger") for one in endpoint.variants
        ),
        slots=whole(former),
        kept=(),
    )


def _spared(endpoint: EndpointPlan, stopped: Collection[Model]) -> EndpointPlan:
    return _without(endpoint, {one.name for one in endpoint.variants if model_of(endpoint.name, one) in stopped})


def _without(endpoint: EndpointPlan, variants: set[str]) -> EndpointPlan:
    """Without these challengers; the champion stays."""
    gone = variants - {endpoint.champion.name}
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
