"""How one protocol's request is put to one backend: the only place that knows both sides.

A call is prepared once, from the client's bytes, and can then be put to any variant of the endpoint; `attempt` and
`copy` raise nothing but BackendError (and cancellation), so whatever they raise counts against the variant.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
from numpy.typing import NDArray

from gateway.backends import base
from gateway.backends.hop import end_to_end
from gateway.backends.http import HttpBackend
from gateway.backends.onnx import OnnxModel
from gateway.errors import BackendError, BadOutput
from gateway.serving import oip
from gateway.serving.asgi import REQUEST_ID, Exchange, Headers
from gateway.serving.table import Endpoint, Variant


class Answer(NamedTuple):
    """What a variant said. `failure` is set where its status counts as an error although it can be passed on."""

    status: int
    headers: Headers
    body: bytes
    failure: str = ""
    outputs: list[NDArray[Any]] | None = None  # of an in-process model


@dataclass(slots=True)
class Call:
    """One inference request, ready to be put to any variant of its endpoint."""

    request: base.Request
    infer: oip.InferRequest | None = None
    codec: oip.Codec | None = None

    async def attempt(self, variant: Variant, deadline: float) -> Answer:
        if isinstance(variant.backend, HttpBackend):
            return await _over_http(variant.backend, self.request, deadline)
        return await self._in_process(variant.backend, deadline)

    async def copy(self, variant: Variant, deadline: float) -> Answer:
        """As `attempt`, for an answer that no client sees: an upstream is told so, outputs are not rendered."""
        if isinstance(variant.backend, HttpBackend):
            marked = msgspec.structs.replace(self.request, headers=[*self.request.headers, SHADOW])
            return await _over_http(variant.backend, marked, deadline)
        return Answer(200, [], b"", outputs=await self._outputs(variant.backend, deadline))

    def may_be_copied_to(self, variant: Variant) -> bool:
        """In-process models have no side effects; an upstream is asked twice only where that is declared safe."""
        return not variant.plan.url or variant.plan.idempotent or self.request.method in _SAFE

    async def _in_process(self, model: OnnxModel, deadline: float) -> Answer:
        outputs = await self._outputs(model, deadline)
        assert self.infer is not None
        assert self.codec is not None
        headers, body = self.codec.render(self.infer, outputs)
        if coding := oip.worth_coding(self.infer, body):
            headers, body = await asyncio.to_thread(oip.coded, headers, body, coding)
        return Answer(200, headers, body, "", outputs)

    async def _outputs(self, model: OnnxModel, deadline: float) -> list[NDArray[Any]]:
        if self.infer is None:
            raise BackendError("an in-process model answers the Open Inference Protocol only")
        return await model.infer(self.infer.inputs, deadline)


async def _over_http(backend: HttpBackend, request: base.Request, deadline: float) -> Answer:
    answer = await backend.call(request, deadline)
    if not 200 <= answer.status <= 599:
        raise BadOutput(f"the upstream answered with the status {answer.status}")
    failure = "status" if answer.status >= 500 else ""
    return Answer(answer.status, _passed_back(answer.status, answer.headers), answer.body, failure)


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


_OURS = b"x-gateway-"
SHADOW = (_OURS + b"shadow", b"1")
_SAFE = frozenset((b"GET", b"HEAD", b"OPTIONS"))
# Never taken over from a client: they are ours to set, or would let a client speak for the gateway.
_NOT_FORWARDED = frozenset((b"host", b"content-length", b"expect", REQUEST_ID))
# Never taken over from an upstream: the answer gets its own, and two of them would contradict each other.
_NOT_PASSED_BACK = frozenset((b"date", REQUEST_ID))


async def prepare(exchange: Exchange, endpoint: Endpoint, target: bytes, body: bytes) -> Call:
    """Check and prepare a request; raises RequestError if the endpoint's models cannot take it."""
    exchange.once(endpoint.unit_header)
    scope = exchange.scope
    if query := scope["query_string"]:
        target += b"?" + query
    method: str = scope["method"]
    headers = _forwarded(exchange, endpoint) if endpoint.forwards else []
    request = base.Request(method.encode(), target, headers, body, _idempotent(endpoint, method))
    if endpoint.codec is None:
        return Call(request)
    for name in oip.DECIDING:
        exchange.once(name)
    if endpoint.codec.heavy(body, exchange.headers):
        infer = await asyncio.to_thread(endpoint.codec.parse, body, exchange.headers)
    else:
        infer = endpoint.codec.parse(body, exchange.headers)
    return Call(request, infer, endpoint.codec)


def _forwarded(exchange: Exchange, endpoint: Endpoint) -> Headers:
    """The client's end-to-end headers, the request id among them whoever made it."""
    headers = [
        (name, value)
        for name, value in end_to_end(exchange.scope["headers"])
        if name not in _NOT_FORWARDED
        and not name.startswith(_OURS)
        and not (b"_" in name and _is_twin(name.replace(b"_", b"-"), endpoint))
    ]
    headers.append((REQUEST_ID, exchange.request_id))
    return headers


def _is_twin(name: bytes, endpoint: Endpoint) -> bool:
    """CGI-like upstreams read `x_user_id` as `x-user-id`: what we drew by must not have a second value there."""
    return name in _NOT_FORWARDED or name == endpoint.unit_header or name.startswith(_OURS)


def _passed_back(status: int, headers: Headers) -> Headers:
    return [
        field
        for field in headers
        if field[0] not in _NOT_PASSED_BACK
        and not field[0].startswith(_OURS)
        and not (status == 304 and field[0] == b"content-length")  # servers expect the body that it announces
    ]


def _idempotent(endpoint: Endpoint, method: str) -> bool:
    safe = method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")
    return safe or all(variant.plan.idempotent for variant in endpoint.variants.values() if variant.plan.url)
