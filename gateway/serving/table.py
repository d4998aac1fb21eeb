"""What a worker serves from: the plan turned into objects that a request needs no look-ups by name to use.

A table is immutable once built. The next plan builds the next table, taking over backends and breakers of
variants that did not change; the old table's leftovers are closed when its last request has ended.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.assignment.covariates import CovariateReader
from gateway.assignment.hashing import bucket, salt_key, shadow_key
from gateway.assignment.segments import SegmentReader
from gateway.assignment.token import Signer, pack_names
from gateway.backends.breaker import Breaker
from gateway.backends.http import HttpBackend
from gateway.backends.onnx import ModelError, OnnxModel, Signature, load
from gateway.plan import HASH_SPACE, EndpointPlan, MetricPlan, Plan, PlanError, VariantPlan, shares
from gateway.serving import oip
from gateway.serving.capture import Capture
from gateway.serving.counters import EndpointCounters, VariantCounters
from gateway.serving.headers import Verdicts, travelling
from gateway.telemetry.status_page import StatusPage

Backend = OnnxModel | HttpBackend


@dataclass(slots=True, eq=False)
class Variant:
    """A variant ready to answer. The champion has no breaker: there is nobody to answer in its place."""

    plan: VariantPlan
    backend: Backend
    breaker: Breaker | None
    counters: VariantCounters
    pi: float

    @property
    def name(self) -> str:
        return self.plan.name


@dataclass(frozen=True, slots=True)
class Kept:
    """A segment value that stays with one variant."""

    place: int  # of the segment
    value: str
    variant: Variant


@dataclass(slots=True, eq=False)
class Endpoint:
    """An endpoint ready to be called."""

    plan: EndpointPlan
    champion: Variant
    variants: dict[str, Variant]
    signature: Signature | None  # of the endpoint's in-process models, which all share it
    codec: oip.Codec | None  # reads and writes for them
    forwards: bool  # some variant is an HTTP upstream
    idempotent: bool  # every upstream may be asked again for the same request
    travelling: Verdicts  # which of a client's headers an upstream gets
    key: bytes
    names: bytes  # for tokens
    unit_header: bytes
    segments: tuple[SegmentReader, ...]
    covariates: tuple[CovariateReader, ...]
    metrics: dict[str, MetricPlan]
    capture: Capture | None
    kept: tuple[Kept, ...]
    counters: EndpointCounters
    _shadow_key: bytes
    _starts: list[int]
    _owners: list[Variant]

    def draw(self, point: int) -> Variant:
        return self._owners[bisect_right(self._starts, point) - 1]

    def keeper(self, segments: tuple[str, ...]) -> Variant | None:
        """Who answers for these segments whatever the hash says."""
        return next((kept.variant for kept in self.kept if segments[kept.place] == kept.value), None)

    def shadows(self, unit: bytes) -> bool:
        """Whether the other variants see copies of this unit's requests."""
        return bucket(self._shadow_key, unit) < self.plan.shadow


@dataclass(slots=True, eq=False)
class Table:
    """One plan, ready to serve."""

    plan: Plan
    endpoints: dict[str, Endpoint]
    signer: Signer
    pepper: bytes
    in_flight: int = 0  # requests, and shadow copies of them


@dataclass(slots=True)
class Registry:
    """Backends and breakers that live longer than one plan, by everything that makes them what they are."""

    page: StatusPage
    _backends: dict[tuple[str, ...], Backend] = field(default_factory=dict)
    _breakers: dict[tuple[str, ...], Breaker] = field(default_factory=dict)

    async def build(self, plan: Plan) -> Table:
        """Load what is missing, off the event loop, and build the table.

        Raises ModelError if an artifact cannot be loaded, PlanError or whatever else a plan can be wrong with;
        nothing that serves now is touched then.
        """
        for endpoint in plan.endpoints:
            for variant in endpoint.variants:
                if _backend_key(endpoint, variant) not in self._backends:
                    self._backends[_backend_key(endpoint, variant)] = await _load(variant)
        endpoints = {endpoint.name: self._endpoint(endpoint, plan.max_body) for endpoint in plan.endpoints}
        return Table(plan, endpoints, Signer(plan.keys), bytes.fromhex(plan.pepper))

    async def retire(self, in_use: Iterable[Table]) -> None:
        """Close what none of the tables in use needs."""
        needed = {
            _backend_key(endpoint, variant)
            for table in in_use
            for endpoint in table.plan.endpoints
            for variant in endpoint.variants
        }
        for key in [key for key in self._backends if key not in needed]:
            self._breakers.pop(key, None)
            await _close(self._backends.pop(key))

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
            forwards=any(variant.url for variant in plan.variants),
            idempotent=all(variant.idempotent for variant in plan.variants if variant.url),
            travelling=travelling(plan.unit_header.encode(), masked=plan.mask_model),
            signature=signature,
            codec=None if signature is None else oip.Codec(plan.name, signature, max_body),
            key=salt_key(plan.salt),
            names=pack_names(plan.name, plan.experiment),
            unit_header=plan.unit_header.encode(),
            segments=tuple(SegmentReader.of(segment) for segment in plan.segments),
            covariates=tuple(CovariateReader.of(covariate) for covariate in plan.covariates),
            metrics={metric.name: metric for metric in plan.metrics},
            capture=None if capture is None else Capture.of(capture, signature),
            kept=_kept(plan, variants),
            counters=EndpointCounters(self.page, plan.name),
            _shadow_key=shadow_key(plan.salt),
            _starts=[slot.start for slot in plan.slots],
            _owners=[variants[slot.variant] for slot in plan.slots],
        )

    def _variant(self, endpoint: EndpointPlan, plan: VariantPlan, pi: float) -> Variant:
        key = _backend_key(endpoint, plan)
        breaker = None
        if plan.role == "challenger":
            breaker = self._breakers.setdefault(key, Breaker())
        counters = VariantCounters(self.page, endpoint.name, endpoint.experiment, plan.name)
        return Variant(plan, self._backends[key], breaker, counters, pi)


def _backend_key(endpoint: EndpointPlan, variant: VariantPlan) -> tuple[str, ...]:
    return endpoint.name, variant.name, variant.digest, variant.onnx, variant.url


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


async def _load(variant: VariantPlan) -> Backend:
    if variant.url:
        return HttpBackend(variant.url)
    return await asyncio.to_thread(load, Path(variant.onnx), variant.digest)


async def _close(backend: Backend) -> None:
    if isinstance(backend, OnnxModel):
        backend.close()
    else:
        await backend.close()
