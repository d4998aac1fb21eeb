"""The downward waist: one immutable snapshot of everything a data-plane worker needs to answer traffic.

The control process compiles a `Plan` from the config and the release state and writes it whole; a worker
reads it whole and swaps it in between two requests. Nothing else flows down.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Literal

import msgspec

from gateway.errors import GatewayError
from gateway.files import give_to_owner

SCHEMA = 5
HASH_SPACE = 1 << 64  # assignment hashes are integers in [0, HASH_SPACE)
PREPARED_AT_ONCE = 32  # models that one plan prepares, at most; no endpoint has more, other endpoints wait

Role = Literal["champion", "challenger"]
Protocol = Literal["oip", "openai", "http"]
Source = Literal["gateway", "outcome", "answer"]
Durability = Literal["process", "disk"]
MetricType = Literal["binary", "bounded", "count", "unbounded", "ratio", "score", "latency"]
BackendKey = tuple[object, ...]


class PlanError(GatewayError):
    """The plan file cannot be used; the worker keeps the plan it has."""

    reason = "plan"


class _Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Common traits of every part of a plan: immutable, strict, built by keyword."""


class CheckPlan(_Value, frozen=True, kw_only=True):
    """An active health check of the replicas of an upstream. Times in seconds."""

    path: str
    interval: float
    timeout: float


class VariantPlan(_Value, frozen=True, kw_only=True):
    """One model behind an endpoint. Exactly one of `onnx` and `urls` is set."""

    name: str
    role: Role
    timeout: float  # seconds for the whole attempt
    onnx: str = ""  # absolute path of the artifact
    digest: str = ""  # sha256 of the artifact, hex
    threads: int = 1  # of the model, in each worker
    max_batch: int = 64  # rows that one run may take together; 1 is one request at a time
    urls: tuple[str, ...] = ()  # of the replicas of an HTTP upstream
    ca: str = ""  # absolute path of a PEM file: the authorities that an https:// upstream is trusted by
    idempotent: bool = False  # an HTTP request that may be repeated
    model: str = ""  # its name at the upstream; "" where the client's name stays
    headers: tuple[tuple[str, str], ...] = ()  # set on every request to the upstream, in place of the client's
    connect_timeout: float = 1.0  # seconds
    first_byte_timeout: float | None = None  # seconds, of each try
    idle_timeout: float = 30.0  # seconds between two pieces of an answer
    stream_timeout: float = 300.0  # seconds that a body passed on while it comes may take
    retries: int = 1  # at most, of one request
    check: CheckPlan | None = None  # active health checks


class SegmentPlan(_Value, frozen=True, kw_only=True):
    """A bounded label read from a request header; a value not listed becomes "other"."""

    name: str
    header: str  # lower case
    values: tuple[str, ...]


class CovariatePlan(_Value, frozen=True, kw_only=True):
    """A number known before assignment, read from a request header and clipped; absent or unreadable is the middle."""

    name: str
    header: str  # lower case
    low: float
    high: float


class MetricPlan(_Value, frozen=True, kw_only=True):
    """What a worker must know to accept or refuse an outcome. None is no bound."""

    name: str
    type: MetricType
    source: Source
    low: float | None = 0.0
    high: float | None = 1.0


class ReadingPlan(_Value, frozen=True, kw_only=True):
    """Where in every answer the value of a metric of source "answer" is."""

    metric: str
    kind: Literal["header", "json", "stream"]
    what: str  # lower-case name of a header, JSON pointer (RFC 6901), or a word of what is known of event streams


class CapturePlan(_Value, frozen=True, kw_only=True):
    """Which number of an answer is the prediction that a metric scores: one element of an output tensor."""

    output: str = ""  # "" for the first output
    index: int = -1  # of the flat data; -1 is the last element


class KeptPlan(_Value, frozen=True, kw_only=True):
    """Requests of one segment value are answered by `variant` whatever their hash says, and have no vote."""

    segment: str
    value: str
    variant: str


class Slot(_Value, frozen=True, kw_only=True):
    """The hash range [start, start of the next slot) belongs to `variant`; the last ends at 2**64."""

    start: int
    variant: str


class EndpointPlan(_Value, frozen=True, kw_only=True):
    """One endpoint: who enters, who answers, and with which probability."""

    name: str
    protocol: Protocol
    salt: str  # of the assignment hash: experiment id, or endpoint name for a fixed split
    experiment: str  # "" for a fixed split
    stage: str  # "" for a fixed split
    unit_header: str  # lower case; "" when every request is a unit of its own
    variants: tuple[VariantPlan, ...]
    slots: tuple[Slot, ...]  # ascending, first starts at 0
    segments: tuple[SegmentPlan, ...] = ()
    metrics: tuple[MetricPlan, ...] = ()
    covariates: tuple[CovariatePlan, ...] = ()
    capture: CapturePlan | None = None  # set where some metric scores predictions
    shadow: int = 0  # width of the hash space whose units' requests the other variants see too; drawn by its own salt
    kept: tuple[KeptPlan, ...] = ()
    mask_model: bool = False  # answers name the endpoint where an upstream would name its model
    readings: tuple[ReadingPlan, ...] = ()

    @property
    def champion(self) -> VariantPlan:
        """Raises PlanError if there is none, as in a plan that nobody has checked."""
        for variant in self.variants:
            if variant.role == "champion":
                return variant
        raise PlanError(f"endpoint {self.name!r} has no champion")


class PreparedPlan(_Value, frozen=True, kw_only=True):
    """A model to load that no request reaches yet: a later plan brings it in once every worker has it."""

    endpoint: str
    variant: VariantPlan

    @property
    def key(self) -> BackendKey:
        return backend_key(self.endpoint, self.variant)


class SigningKey(_Value, frozen=True, kw_only=True):
    """A key of decision tokens: the first in the plan signs, all verify."""

    id: int
    secret: str  # hex


class OutcomesPlan(_Value, frozen=True, kw_only=True):
    """How outcomes are taken in."""

    durability: Durability = "process"  # what an acknowledged outcome survives
    keys: tuple[str, ...] = ()  # SHA-256 (hex) of those that outcomes may be posted by unit with


class Plan(_Value, frozen=True, kw_only=True):
    """The whole of what a worker serves from."""

    revision: int
    config_digest: str
    as_of: int  # the fold step whose rows this plan was computed from; 0 before the first
    endpoints: tuple[EndpointPlan, ...]
    keys: tuple[SigningKey, ...]
    pepper: str  # hex; keys the stored hash of unit ids
    max_body: int  # bytes
    max_connections: int = 0  # of clients, in each worker; 0 for as many as its descriptors allow
    max_requests: int = 1024  # answered at a time, in each worker
    trusted_proxies: tuple[str, ...] = ()  # networks, or "unix", whose x-forwarded-for and the like are believed
    prepare: tuple[PreparedPlan, ...] = ()  # models to load that no endpoint uses yet
    outcomes: OutcomesPlan = OutcomesPlan()
    max_spool: int = 8 << 30  # bytes of the spools of all workers together; beyond it nothing is appended
    schema: int = SCHEMA


def backend_key(endpoint: str, variant: VariantPlan) -> BackendKey:
    """Everything that makes a backend what it is: where something of it changes, another backend is needed."""
    model = variant.digest, variant.onnx, variant.threads, variant.max_batch
    upstream = variant.urls, variant.ca, variant.headers, variant.idempotent, variant.retries, variant.check
    times = variant.connect_timeout, variant.first_byte_timeout, variant.idle_timeout, variant.stream_timeout
    return (endpoint, variant.name, *model, *upstream, *times)


def models(endpoints: Iterable[EndpointPlan]) -> Iterator[PreparedPlan]:
    """The models that these endpoints need in the process; an upstream needs no loading."""
    for endpoint in endpoints:
        for variant in endpoint.variants:
            if variant.onnx:
                yield PreparedPlan(endpoint=endpoint.name, variant=variant)


def shares(slots: tuple[Slot, ...]) -> dict[str, int]:
    """Width of the hash space held by each variant, in units of 1 / 2**64 (they sum to 2**64)."""
    widths: dict[str, int] = {}
    ends = [slot.start for slot in slots[1:]] + [HASH_SPACE]
    for slot, end in zip(slots, ends, strict=True):
        widths[slot.variant] = widths.get(slot.variant, 0) + end - slot.start
    return widths


def encode(plan: Plan) -> bytes:
    return msgspec.json.format(msgspec.json.encode(plan), indent=1) + b"\n"


def decode(data: bytes) -> Plan:
    """Parse a plan; raises PlanError on damage, another schema version, or a split that cannot be drawn from."""
    try:
        plan = msgspec.json.decode(data, type=Plan)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PlanError(f"plan file is not readable: {error}") from error
    if plan.schema != SCHEMA:
        raise PlanError(f"plan file has schema {plan.schema}, this program reads {SCHEMA}")
    if not plan.keys:
        raise PlanError("plan file has no signing key")
    for endpoint in plan.endpoints:
        if problem := _problem(endpoint):
            raise PlanError(f"endpoint {endpoint.name!r}: {problem}")
    return plan


def _problem(endpoint: EndpointPlan) -> str:
    """Why requests could not be drawn from this endpoint's split, or ""."""
    names = [variant.name for variant in endpoint.variants]
    starts = [slot.start for slot in endpoint.slots]
    if len(names) != len(set(names)) or [v.role for v in endpoint.variants].count("champion") != 1:
        return "needs variants of different names, exactly one of them the champion"
    if starts[:1] != [0] or starts[-1] >= HASH_SPACE or any(a >= b for a, b in pairwise(starts)):
        return f"slots must start at 0 and ascend below 2**64, not {starts}"
    if strangers := {slot.variant for slot in endpoint.slots} - set(names):
        return f"slots belong to unknown variants {sorted(strangers)}"
    return ""


def write(path: Path, plan: Plan) -> None:
    """Replace the plan file atomically. It holds keys, so only its owner may read it."""
    # The name is this process's own: a person's command may write beside the control process.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        give_to_owner(file.fileno(), path.parent)
        file.write(encode(plan))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
