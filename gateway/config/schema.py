"""What a config may say: the typed form of the file, key by key.

The models check each value by itself; what values must be to one another is checked in `rules`. Only a
`Config` that came out of `load` has passed both. `model_dump(mode="json")` gives the spelling back.
The text under each key is its description in the published JSON Schema.
"""

# No postponed annotations here: pydantic evaluates them.
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer
from pydantic.json_schema import GenerateJsonSchema

from gateway.config import kinds
from gateway.config.experiment import Decision, Experiment, Guardrail, Holdback, Objective, Stage
from gateway.config.kinds import Section
from gateway.config.metric import Metric

__all__ = [
    "EVERY_REQUEST",
    "Admin",
    "Config",
    "Covariate",
    "Data",
    "Decision",
    "Endpoint",
    "Experiment",
    "Guardrail",
    "Holdback",
    "Keys",
    "Metric",
    "Metrics",
    "Objective",
    "Outcomes",
    "Retention",
    "Section",
    "Segment",
    "Spool",
    "Stage",
    "Unit",
    "Variant",
    "json_schema",
]


class Data(Section):
    """The port that clients call."""

    listen: kinds.Listen = Field("0.0.0.0:8080", validate_default=True)
    """host:port, "[::1]:port" in quotes, or unix:/path of a socket file, which its owner and group may use."""
    workers: kinds.Workers = "auto"
    """How many processes answer; auto is one for each CPU that the gateway may use."""
    max_body: kinds.Size = Field("16MiB", validate_default=True)
    """Largest request body, such as 64KiB, 16MiB or a number of bytes; a larger one is answered 413."""
    max_connections: kinds.Connections = "auto"
    """How many client connections each worker holds, never more than its file descriptors allow, which is what auto
    takes; one too many takes the place of one that is idle, or else is answered 503, unless it asks for health."""
    max_requests: kinds.Requests = 1024
    """How many requests each worker answers at a time; one too many is answered 503 before anything is assigned, unless
    it asks for health."""
    trusted_proxies: Annotated[tuple[kinds.Network, ...], Field(strict=False, max_length=64)] = ()
    """Networks of the proxies in front, such as [10.0.0.0/8], and `unix` for whoever may use a socket file; at most 64.
    What they say in x-forwarded-for and the like is passed on to upstreams, with their own address; from anybody else
    it is dropped."""
    max_memory: kinds.Memory | None = None
    """Memory that a worker may hold, such as 2GiB; beyond it another takes its place, one at a time and one a minute
    at most, without a lost request. By default no limit."""


class Admin(Section):
    """The port that operators and scripts call."""

    listen: kinds.Listen = Field("127.0.0.1:8081", validate_default=True)
    """host:port, "[::1]:port" in quotes, or unix:/path. Whoever reaches it steers the gateway: keep it on
    loopback, or a socket file."""


class Metrics(Section):
    """The port that Prometheus reads."""

    listen: kinds.Listen = Field("127.0.0.1:9090", validate_default=True)
    """host:port, "[::1]:port" in quotes, or unix:/path. Read-only."""


class Outcomes(Section):
    """How outcomes are taken in, on the port that clients call."""

    durability: Literal["process", "disk"] = "process"
    """What an outcome survives once it is acknowledged. process: the death of every process of the gateway. disk: a
    power failure too, for it is on the disk before it is acknowledged; requests that come together share the wait."""
    keys: Annotated[tuple[kinds.Key, ...], Field(strict=False, max_length=16)] = ()
    """Keys by which outcomes may be posted by unit, without a decision token, such as ["${OUTCOME_KEY}"]; ${NAME} is
    taken from the environment. A caller sends one as `Authorization: Bearer <key>`. At least 16 letters, digits or
    ._~+/- each, and at most 16 keys, so that one can follow another. By default nobody may."""


class Spool(Section):
    """The files in data_dir to which the workers append what happens, before it is in the store."""

    max_size: kinds.Space = Field("8GiB", validate_default=True)
    """Size of all of them together, from 16MiB, by default 8GiB. What is in the store already goes early where room
    gets scarce. Beyond it, as on a full disk, requests are answered but no longer recorded, which stops promotions,
    and outcomes are answered 503."""
    keep: kinds.Duration = Field("24h", validate_default=True)
    """How long a file stays once everything in it is in the store, where there is room; by default 24h."""


class Unit(Section):
    """What is randomised: all requests of one unit get the same variant."""

    header: kinds.Header = Field(alias="from")
    """header:<name>, the request header that holds the unit, such as header:x-user-id."""
    otherwise: Literal["request"] = "request"
    """What a request without that header is: `request` makes it a unit of its own."""

    @model_serializer(mode="wrap")
    def _spelling(self, spell: SerializerFunctionWrapHandler) -> Any:
        return spell(self) if self.header else "request"


EVERY_REQUEST = Unit.model_construct(header="", otherwise="request")


def _unit(value: Any) -> Any:
    return EVERY_REQUEST if value == "request" else value


class Segment(Section):
    """A label by which results are cut. A request with another value, or none, counts as "other"."""

    header: kinds.Header = Field(alias="from")
    """header:<name>, the request header that holds the label, such as header:x-origin."""
    values: Annotated[tuple[kinds.Label, ...], Field(strict=False, min_length=1, max_length=50)]
    """The labels to tell apart, at most 50."""


class Covariate(Section):
    """A number that is known before the request is assigned, and never a consequence of the answer."""

    header: kinds.Header = Field(alias="from")
    """header:<name>, the request header that holds the number, such as header:x-past-spend."""
    bounds: kinds.Bounds
    """The least and the greatest value that it is told apart to; a request without it counts as the middle."""


CONNECT_TIMEOUT, IDLE_TIMEOUT, STREAM_TIMEOUT = 1.0, 30.0, 300.0  # seconds
RETRIES = 1
THREADS, MAX_BATCH = 1, 64


def _default_timeout(data: dict[str, Any]) -> str:
    return "10s" if data["url"] else "1s"


class HealthCheck(Section):
    """What every replica of an upstream is asked beside the traffic; a status other than 2xx, or none in time, is a
    failure. Three in a row take it out of rotation, unless no other is left; two good answers bring it back."""

    path: kinds.UrlPath
    """Behind the base URL, such as /health."""
    interval: kinds.Timeout = Field("5s", validate_default=True)
    """Pause between two checks of one worker, by default 5s."""
    timeout: kinds.Timeout = Field("1s", validate_default=True)
    """Time for the whole answer, by default 1s."""


class Variant(Section):
    """One model behind the endpoint: exactly one of `onnx` and `url`."""

    role: Literal["champion", "challenger"]
    """champion: what serves today, one for each endpoint. challenger: what may replace it."""
    onnx: kinds.File | None = None
    """Path of an ONNX file, from the folder of this file; served in the process. Needs protocol oip. It must lie below
    the folder of this file or one of model_roots."""
    sha256: kinds.Digest | None = None
    """For onnx: the SHA-256 that the file must have, 64 hex digits; any other file is refused."""
    threads: kinds.Threads | None = None
    """For onnx: threads of the model in each worker, 1 to 64, by default 1."""
    max_batch: kinds.Batch | None = None
    """For onnx: rows of waiting requests that one run may take together, 1 to 1024, by default 64; 1 runs each request
    alone."""
    url: kinds.Urls | None = None
    """Base URL of an HTTP upstream, such as http://rank-a:8000, or a list of up to 16 of those of its replicas: each
    request goes to the one with the fewest outstanding; one that keeps failing is left out for a while."""
    ca: kinds.File | None = None
    """For an https:// url: path of a PEM file, from the folder of this file, with the authorities to trust in the place
    of the system's. Workers read it when they start, so it must stay; a renewed one needs a restart or another path."""
    timeout: kinds.Timeout = Field(default_factory=_default_timeout, validate_default=True)
    """Time for the whole answer, or until the head of one that is passed on while it comes, 1ms to 10m; by default 1s
    for onnx and 10s for url. Language models often need more."""
    idempotent: bool = False
    """true where a request to this upstream may be repeated after a failure: on it, or on the champion."""
    model: kinds.ModelName | None = None
    """For url with protocol oip or openai: what the upstream calls the model, where that is not the endpoint's name. It
    is put in the place of the endpoint's name in every request."""
    headers: Annotated[Mapping[kinds.SetHeader, kinds.Template], Field(max_length=16)] = Field(
        {}, validate_default=True
    )
    """For url: headers set on every request to the upstream, in place of the client's, such as
    {authorization: "Bearer ${PROVIDER_KEY}"}; ${NAME} is taken from the environment."""
    connect_timeout: kinds.Timeout | None = None
    """For url: time for a connection, name and TLS with it, by default 1s."""
    first_byte_timeout: kinds.Timeout | None = None
    """For url: time from the whole request to the first byte of an answer, of each try; by default what is left of
    `timeout`, and then nothing is left for another try."""
    idle_timeout: kinds.Timeout | None = None
    """For url: the longest pause between two pieces of an answer, by default 30s."""
    stream_timeout: kinds.Period | None = None
    """For url: how long a request body or an answer that is passed on while it comes may go on, by default 5m; then an
    answer is cut, which counts as an error. No verdict waits longer than that for a request."""
    retries: kinds.Retries | None = None
    """For url: how often a request is tried again, by default once, after a failed connection, a broken or late first
    byte, or status 502, 503 or 504 (429 and 503 no earlier than their Retry-After). Only where it may be repeated
    (`idempotent`, or its method says so) or nothing of it was sent, only on the same variant, within `timeout`, and
    never more than a fifth of the requests and ten a second of each worker. Not counted is the repetition of such a
    request whose kept-alive connection was closed as it was used."""
    health: HealthCheck | None = None
    """For url: active health checks of its replicas; none by default."""


class Endpoint(Section):
    """What clients call: variants, and either a fixed split or an experiment."""

    protocol: Literal["oip", "openai", "http"]
    """oip: Open Inference Protocol under /v2. openai: OpenAI-compatible under /v1, where `model` names the endpoint.
    http: plain HTTP under /<endpoint>/."""
    mask_model: bool = False
    """true where answers shall name the endpoint in the place of the upstream's model, so that clients stay blind. For
    protocol oip and openai; other bytes of an answer are never touched."""
    unit: Annotated[Unit, BeforeValidator(_unit, json_schema_input_type=Unit | Literal["request"])] = Field(
        "request", validate_default=True
    )
    """What is randomised: {from: "header:x-user-id", otherwise: request}, or `request`: each one alone."""
    segments: Annotated[Mapping[kinds.Name, Segment], Field(max_length=8)] = Field({}, validate_default=True)
    """Labels by which results are cut, at most 8."""
    covariates: Annotated[Mapping[kinds.Name, Covariate], Field(max_length=4)] = Field({}, validate_default=True)
    """Numbers that foretell the objective, so that an experiment needs fewer units; at most 4. Each is known before
    the request is assigned and never a consequence of the answer: past spend, not the length of the answer."""
    variants: Annotated[Mapping[kinds.Name, Variant], Field(min_length=1, max_length=32)]
    """The models, by name: one champion, and challengers; at most 32."""
    traffic: Mapping[str, kinds.Percent] | None = None
    """A fixed split: a share for every variant, 100% together. Not beside an experiment."""
    metrics: Mapping[kinds.Name, Metric] = Field({}, validate_default=True)
    """What is measured, by name."""
    experiment: Experiment | None = None
    """A release by evidence, of at most 8 challengers."""

    @property
    def champion(self) -> str:
        """The name of the champion."""
        return next(name for name, variant in self.variants.items() if variant.role == "champion")

    def timed(self, metric: Metric) -> Metric:
        """The metric whose window and grace are those of `metric`: a ratio has its numerator's."""
        return metric if metric.numerator is None else self.metrics[metric.numerator]

    def answer_within(self, champion: str) -> float:
        """Seconds after which a request has ended: a challenger's attempt, the champion's, and a stream."""
        slowest = max((variant.timeout for name, variant in self.variants.items() if name != champion), default=0.0)
        streams = [variant.stream_timeout or STREAM_TIMEOUT for variant in self.variants.values()]
        return self.variants[champion].timeout + slowest + (max(streams) if self.protocol != "oip" else 0.0)

    def shares(self) -> dict[str, Decimal]:
        """The split that the file itself gives: with an experiment, all is the champion's."""
        whole = {name: Decimal(name == self.champion) for name in self.variants}
        return whole if self.traffic is None else dict(self.traffic)


class Keys(Section):
    """The secrets of an installation, 64 hex digits each, such as `gateway keys` makes."""

    signing: Annotated[tuple[kinds.Secret, ...], Field(strict=False, min_length=1, max_length=8)]
    """Keys of decision tokens, such as ["${GATEWAY_SIGNING_KEY}"]; the first signs, all verify, so that one can follow
    another: keep an old one until the longest window has passed."""
    pepper: kinds.Secret
    """Keys the hash under which units are remembered, such as "${GATEWAY_PEPPER}". It must never change: with another
    one everybody is a stranger."""


class Retention(Section):
    """How long facts are kept in the store. Votes, evidence, decisions and plans stay."""

    requests: kinds.Retention = Field("7d", validate_default=True)
    """Requests, with answers and outcomes, go by the day (UTC) when this has passed since its end, and what they were
    counted as is written down; from 1h, by default 7d."""


def _default_store(data: dict[str, Any]) -> str:
    return f"sqlite:///{data['data_dir'] / 'gateway.db'}"


class Config(Section):
    """The configuration of an A/B-testing gateway."""

    version: kinds.Version
    """Version of this format: 1."""
    data: Data = Field({}, validate_default=True)
    admin: Admin = Field({}, validate_default=True)
    metrics: Metrics = Field({}, validate_default=True)
    outcomes: Outcomes = Field({}, validate_default=True)
    spool: Spool = Field({}, validate_default=True)
    retention: Retention = Field({}, validate_default=True)
    data_dir: kinds.Folder = Field("var/gateway", validate_default=True)
    """Folder for what the gateway keeps (facts, plan, keys), from the folder of this file."""
    store: kinds.StoreUrl = Field(default_factory=_default_store, validate_default=True)
    """Where everything is kept that has happened. One node: sqlite:///path, from the folder of this file; by default
    gateway.db in data_dir. Several nodes: postgresql://user:${NAME}@host/database, with options of libpq behind a ?;
    ${NAME} is taken from the environment, for no password may stand here."""
    keys: Keys | None = None
    """The secrets that all nodes share; needed where several share a store. By default each node makes its own and
    keeps them in data_dir."""
    model_roots: Annotated[tuple[kinds.Folder, ...], Field(strict=False, max_length=16)] = Field(
        (), validate_default=True
    )
    """Further folders in which ONNX files may lie, at most 16, from the folder of this file. A link that leads out of
    all of them is refused."""
    endpoints: Annotated[Mapping[kinds.EndpointName, Endpoint], Field(min_length=1)]
    """What clients call, by name."""

    @property
    def shared(self) -> bool:
        """Whether other nodes may have the same store."""
        return not self.store.startswith("sqlite:")

    @property
    def store_elsewhere(self) -> bool:
        """Whether the store may have seen spools that were in another data directory."""
        return self.shared or not self.store_path.is_relative_to(self.data_dir)

    @property
    def store_path(self) -> Path:
        """The absolute path of the SQLite file."""
        return Path(self.store.removeprefix("sqlite:///"))


def json_schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of the file as a person writes it, for editors."""
    schema = Config.model_json_schema()
    for part in (schema, *schema["$defs"].values()):
        part["description"] = " ".join(part["description"].split())
        for key in part["properties"].values():
            if "description" in key:
                key["description"] = " ".join(key["description"].split())
            # pydantic leaves it open what becomes of names that match no pattern
            if "patternProperties" in key:
                key["additionalProperties"] = False
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema}
