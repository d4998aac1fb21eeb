"""Backends and breakers that live longer than one plan.

The next plan builds the next table from what is here, taking over backends and breakers of variants that did not
change; what no table in use needs any more is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from gateway.assignment.covariates import CovariateReader
from gateway.assignment.hashing import salt_key, shadow_key
from gateway.assignment.segments import SegmentReader
from gateway.assignment.token import Signer, pack_names
from gateway.backends import tls
from gateway.backends.base import Timeouts
from gateway.backends.breaker import Breaker
from gateway.backends.http import HttpBackend, is_secure
from gateway.backends.onnx import ModelError, OnnxModel, Signature
from gateway.backends.upstream import Upstream
from gateway.plan import (
    HASH_SPACE,
    BackendKey,
    EndpointPlan,
    Plan,
    PlanError,
    PreparedPlan,
    VariantPlan,
    backend_key,
    shares,
)
from gateway.serving import oip
from gateway.serving.answers.capture import Capture
from gateway.serving.answers.readings import Readings
from gateway.serving.counters import EndpointCounters, UpstreamCounters, VariantCounters
from gateway.serving.tables.table import Backend, Endpoint, Kept, Table, Variant, faults
from gateway.serving.wire.headers import travelling
from gateway.telemetry.status_page import StatusPage


@dataclass(slots=True)
class Registry:
    """Backends and breakers, by everything that makes them what they are."""

    page: StatusPage
    _backends: dict[BackendKey, Backend] = field(default_factory=dict)
    _breakers: dict[BackendKey, Breaker] = field(default_factory=dict)

    def missing(self, wanted: Iterable[PreparedPlan]) -> list[PreparedPlan]:
        """Those of these models that are not loaded."""
        return [one for one in wanted if one.key not in self._backends]

    def add(self, loaded: PreparedPlan, model: OnnxModel) -> None:
        """Take a model that is loaded and warm."""
        self._backends[loaded.key] = model

    async def foresee(self, plan: Plan) -> None:
        """Read the certificates that new upstreams of this plan need, in a thread: `build` then finds them read."""
        for endpoint in plan.endpoints:
            for variant in endpoint.variants:
                if any(map(is_secure, variant.urls)) and backend_key(endpoint.name, variant) not in self._backends:
                    with suppress(OSError):  # `build` will say so
                        await asyncio.to_thread(tls.context, _authorities(variant))

    def build(self, plan: Plan) -> Table:
        """The plan as a table, at once; its models must be here.

        Raises ModelError if the models of an endpoint do not fit together, PlanError or whatever else a plan can be
        wrong with; nothing that serves now is touched then.
        """
        endpoints = {endpoint.name: self._endpoint(endpoint, plan.max_body) for endpoint in plan.endpoints}
        return Table(plan, endpoints, Signer(plan.keys), bytes.fromhex(plan.pepper))

    async def retire(self, in_use: Iterable[Table], promised: Iterable[PreparedPlan] = ()) -> None:
        """Close what none of the tables in use needs and no coming one was promised."""
        needed = {one.key for one in promised}
        for table in in_use:
            for endpoint in table.plan.endpoints:
                needed |= {backend_key(endpoint.name, variant) for variant in endpoint.variants}
        for key in [key for key in self._backends if key not in needed]:
            self._breakers.pop(key, None)
            await _close(self._backends.pop(key))

    def report(self) -> None:
        """Tell the status page which replicas of upstreams are in rotation."""
        for backend in self._backends.values():
            if isinstance(backend, Upstream):
                backend.report()

    async def close(self) -> None:
        for backend in self._backends.values():
            await _close(backend)
        self._backends.clear()

    def _endpoint(self, plan: EndpointPlan, max_body: int) -> Endpoint:
        widths = shares(plan.slots)
        variants = {
            variant.name: self._variant(plan, variant, widths.get(variant.name, 0) / HASH_SPACE)
            for variant in plan.variants
        }
        signature = _shared_signature(plan.name, variants.values())
        capture = plan.capture if plan.protocol == "oip" else None  # other answers have no tensors
        return Endpoint(
            plan=plan,
            champion=variants[plan.champion.name],
            variants=variants,
            forwards=any(variant.urls for variant in plan.variants),
            travelling=travelling(plan.unit_header.encode(), _set_by(plan.variants), masked=plan.mask_model),
            signature=signature,
            codec=None if signature is None else oip.Codec(plan.name, signature, max_body),
            key=salt_key(plan.salt),
            names=pack_names(plan.name, plan.experiment),
            unit_header=plan.unit_header.encode(),
            segments=tuple(SegmentReader.of(segment) for segment in plan.segments),
            covariates=tuple(CovariateReader.of(covariate) for covariate in plan.covariates),
            metrics={metric.name: metric for metric in plan.metrics},
            capture=None if capture is None else Capture.of(capture, signature),
            readings=Readings.of(plan),
            kept=_kept(plan, variants),
            counters=EndpointCounters(self.page, plan.name),
            _shadow_key=shadow_key(plan.salt),
            _starts=[slot.start for slot in plan.slots],
            _owners=[variants[slot.variant] for slot in plan.slots],
        )

    def _variant(self, endpoint: EndpointPlan, plan: VariantPlan, pi: float) -> Variant:
        key = backend_key(endpoint.name, plan)
        if plan.urls and key not in self._backends:
            self._backends[key] = _upstream(endpoint.name, plan, UpstreamCounters(self.page, endpoint.name, plan.name))
        breaker = None
        if plan.role == "challenger":
            breaker = self._breakers.setdefault(key, Breaker())
        counters = VariantCounters(self.page, endpoint.name, endpoint.experiment, plan.name)
        return Variant(plan, self._backends[key], breaker, counters, pi, faults(plan))


def _upstream(endpoint: str, plan: VariantPlan, counters: UpstreamCounters) -> Upstream:
    first_byte = inf if plan.first_byte_timeout is None else plan.first_byte_timeout
    timeouts = Timeouts(plan.connect_timeout, first_byte, plan.idle_timeout, plan.stream_timeout)
    own = [(name.encode(), value.encode()) for name, value in plan.headers]
    try:
        replicas = [
            HttpBackend(url, ca=_authorities(plan), headers=own, idempotent=plan.idempotent, timeouts=timeouts)
            for url in plan.urls
        ]
    except OSError as error:
        raise PlanError(f"{endpoint}/{plan.name}: no authorities could be read from {plan.ca}: {error}") from error
    return Upstream(replicas, counters, most_retries=plan.retries, check=plan.check)


def _authorities(plan: VariantPlan) -> Path | None:
    return Path(plan.ca) if plan.ca else None


def _set_by(variants: Iterable[VariantPlan]) -> Iterator[bytes]:
    """The names of the headers that these set on what is sent to them."""
    for variant in variants:
        for name, _ in variant.headers:
            yield name.lower().encode()


def _kept(endpoint: EndpointPlan, variants: Mapping[str, Variant]) -> tuple[Kept, ...]:
    places = {segment.name: place for place, segment in enumerate(endpoint.segments)}
    try:
        return tuple(Kept(places[one.segment], one.value, variants[one.variant]) for one in endpoint.kept)
    except KeyError as error:
        raise PlanError(f"{endpoint.name}: kept names {error}, which the endpoint does not have") from error


def _shared_signature(endpoint: str, variants: Iterable[Variant]) -> Signature | None:
    """Of the endpoint's in-process models: a request is checked once, then put to any of them."""
    shared: Signature | None = None
    for variant in variants:
        if isinstance(variant.backend, OnnxModel):
            signature = variant.backend.signature
            if shared is not None and signature != shared:
                raise ModelError(f"{endpoint}: {variant.name} is {signature}, the others are {shared}")
            shared = signature
    return shared


async def _close(backend: Backend) -> None:
    if isinstance(backend, OnnxModel):
        backend.close()
    else:
        await backend.close()
