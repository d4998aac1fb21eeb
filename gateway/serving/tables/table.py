"""What a worker serves from: the plan turned into objects that a request needs no look-ups by name to use.

A table is immutable once built (by the `Registry`). The next plan builds the next table.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

from gateway.assignment.covariates import CovariateReader
from gateway.assignment.hashing import bucket
from gateway.assignment.segments import SegmentReader
from gateway.assignment.token import Signer
from gateway.backends.breaker import Breaker
from gateway.backends.onnx import OnnxModel, Signature
from gateway.backends.upstream import Upstream
from gateway.plan import EndpointPlan, MetricPlan, Plan, VariantPlan
from gateway.serving import oip
from gateway.serving.answers.capture import Capture
from gateway.serving.answers.readings import Readings
from gateway.serving.counters import EndpointCounters, VariantCounters
from gateway.serving.wire.verdicts import Verdicts

Backend = OnnxModel | Upstream


@dataclass(slots=True, eq=False)
class Variant:
    """A variant ready to answer. The champion has no breaker: there is nobody to answer in its place."""

    plan: VariantPlan
    backend: Backend
    breaker: Breaker | None
    counters: VariantCounters
    pi: float
    faults: frozenset[int] = frozenset()  # statuses below 500 that count against it: see `faults`

    @property
    def name(self) -> str:
        return self.plan.name


def faults(plan: VariantPlan) -> frozenset[int]:
    """A status below 500 says that the client has made a mistake; unless it complains of what the config has set."""
    keys = {401, 403, 429} if plan.headers else set()  # of the provider, and what may be done with them
    names = {404} if plan.model else set()
    return frozenset(keys | names)


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
    travelling: Verdicts  # which of a client's headers an upstream gets
    key: bytes
    names: bytes  # for tokens
    unit_header: bytes
    segments: tuple[SegmentReader, ...]
    covariates: tuple[CovariateReader, ...]
    metrics: dict[str, MetricPlan]
    capture: Capture | None
    readings: Readings | None
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
    usual: dict[bytes, Endpoint] = field(init=False)
    """Endpoints by how their paths are usually spelt: /v2/models/{name}/infer, or the first segment of plain HTTP."""

    def __post_init__(self) -> None:
        paths = {"oip": b"/v2/models/%b/infer", "http": b"/%b", "openai": b""}
        ways = ((paths[one.plan.protocol], name, one) for name, one in self.endpoints.items())
        self.usual = {path % name.encode(): one for path, name, one in ways if path}
