"""How one request is put to one backend: the only place that knows both sides.

A call is prepared once, from the client's bytes, and can then be put to any variant of the endpoint; `attempt` and
`copy` raise BackendError, which counts against the variant. Beside that there is cancellation, and RequestError where
an upload that is still coming turns out wrong.
`Call` itself is plain HTTP; `open_inference` and `openai` refine what a variant is asked and what of its answer the
client sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from numpy.typing import NDArray

from gateway.backends import base
from gateway.backends.faults import ProtocolFault
from gateway.backends.hop import end_to_end
from gateway.backends.upstream import Upstream
from gateway.errors import BackendError, BackendUnavailable
from gateway.serving.asgi import REQUEST_ID, Exchange, Headers
from gateway.serving.tables.table import Endpoint, Variant
from gateway.serving.wire import trace
from gateway.serving.wire.headers import OURS, is_event_stream, returning

HELD = 64 << 10  # bytes up to which a body is collected before it is sent on: then it can be sent to somebody else too


@dataclass(slots=True)
class Answer:
    """What a variant said. `failure` is set where its status counts as an error although it can be passed on."""

    status: int
    headers: Headers
    body: bytes
    failure: str = ""
    outputs: list[NDArray[Any]] | None = None  # of an in-process model
    rest: base.Body | None = None  # what is still to come; whoever has the answer closes it
    tries: int = 1  # of the variant that said it

    @property
    def events(self) -> bool:
        """Whether it is an event stream."""
        return is_event_stream(self.headers)


@dataclass(slots=True)
class Call:
    """One request, ready to be put to any variant of its endpoint."""

    request: base.Request

    async def attempt(self, variant: Variant, deadline: float) -> Answer:
        backend = variant.backend
        if not isinstance(backend, Upstream):
            raise BackendError("an in-process model answers the Open Inference Protocol only")
        return self.told(_judged(await backend.call(self.asked(variant), deadline), variant))

    async def copy(self, variant: Variant, deadline: float) -> Answer:
        """As `attempt`, for an answer that no client sees: an upstream is told so, and it is taken whole."""
        assert isinstance(variant.backend, Upstream)
        asked = self.asked(variant)
        marked = msgspec.structs.replace(asked, headers=[*asked.headers, SHADOW], whole=True)
        return _judged(await variant.backend.call(marked, deadline, retry=False), variant)

    def asked(self, variant: Variant) -> base.Request:
        """The request as this variant is asked."""
        return self.request

    def told(self, answer: Answer) -> Answer:
        """The answer as the client sees it."""
        return answer

    def last_words(self, answer: Answer, failure: BackendError) -> bytes:
        """What is said at the end of an answer that breaks off, before the connection is cut."""
        return b""

    def says_it_failed(self, piece: bytes) -> bool:
        """Whether this piece of an event stream tells that it has failed, though its status said otherwise."""
        return False

    def may_be_copied_to(self, variant: Variant) -> bool:
        """In-process models have no side effects; an upstream is asked twice only where that is declared safe."""
        if not variant.plan.urls:
            return True
        return self.request.upload is None and (variant.plan.idempotent or self.request.method in _SAFE)

    def may_fall_back(self, variant: Variant, failure: BackendError | None = None) -> bool:
        """Whether the champion may be asked after this variant has failed: an upload has gone by, and an HTTP request
        is repeated only where that is declared safe. Nobody has heard of a request that could not be sent."""
        backend = variant.backend
        if not isinstance(backend, Upstream) or isinstance(failure, BackendUnavailable):
            return True
        return backend.may_repeat(self.request)


async def prepare(exchange: Exchange, endpoint: Endpoint, target: bytes, limit: int) -> Call:
    """A plain HTTP request; a long body is passed on while it comes. Raises RequestError on what cannot be taken."""
    exchange.once(endpoint.unit_header)
    body, upload, length = await exchange.upload(limit, HELD)
    return Call(request_of(exchange, endpoint, target, body, upload, length))


def request_of(
    exchange: Exchange,
    endpoint: Endpoint,
    target: bytes,
    body: bytes,
    upload: base.Upload | None = None,
    length: int | None = None,
    *,
    whole: bool = False,
) -> base.Request:
    """The client's request as an upstream is asked; `target` without the query, which is the client's."""
    scope = exchange.scope
    if query := scope["query_string"]:
        target += b"?" + query
    method: bytes = scope["method"].encode()
    headers = _forwarded(exchange, endpoint) if endpoint.forwards else []
    return base.Request(method, target, headers, body, upload, length, whole)


def _judged(answer: base.Answer, variant: Variant) -> Answer:
    """What an upstream has said, as the answer of its variant."""
    status = answer.status
    if not 200 <= status <= 599:
        # No stream is left open: an upstream has no say in a status like that, nor in how long it goes on.
        if answer.rest is not None:
            answer.rest.close()
        raise ProtocolFault(f"the upstream answered with the status {status}")
    return Answer(
        status,
        _passed_back(status, answer.headers, streamed=answer.rest is not None),
        answer.body,
        "status" if status >= 500 or status in variant.faults else "",
        None,
        answer.rest,
        answer.tries,
    )


def predicted(endpoint: Endpoint, variant: Variant, answer: Answer | None) -> float | None:
    """What the variant predicted, where a metric scores it; an answer in which that cannot be read is counted."""
    capture = endpoint.capture
    if capture is None or answer is None:
        return None
    prediction = None
    if answer.outputs is not None:
        prediction = capture.from_arrays(answer.outputs)
    elif answer.status < 300:
        prediction = capture.from_json(answer.headers, answer.body)
    if prediction is None:
        variant.counters.unread()
    return prediction


SHADOW = (OURS + b"shadow", b"1")
_SAFE = frozenset((b"GET", b"HEAD", b"OPTIONS"))


def _forwarded(exchange: Exchange, endpoint: Endpoint) -> Headers:
    """The client's end-to-end headers, the request id among them whoever made it, and for whom this is asked."""
    fields: Headers = exchange.scope["headers"]
    if b"connection" in exchange.headers:
        fields = end_to_end(fields)
    travels = endpoint.travelling
    headers = [field for field in fields if travels[field[0]]]
    if (trace.PARENT in exchange.headers or trace.STATE in exchange.headers) and not trace.is_passed_on(exchange):
        headers = [field for field in headers if field[0] not in (trace.PARENT, trace.STATE)]
    headers += exchange.forwarding()
    headers.append((REQUEST_ID, exchange.request_id))
    return headers


def _passed_back(status: int, headers: Headers, *, streamed: bool) -> Headers:
    kept = [field for field in headers if returning[field[0]]]
    # No body may follow; or other events than the upstream's, or one more.
    if status == 304 or (streamed and is_event_stream(headers)):
        kept = [field for field in kept if field[0] != b"content-length"]
    return kept
