"""How one protocol's request is put to one backend: the only place that knows both sides.

A call is prepared once, from the client's bytes, and can then be put to any variant of the endpoint; `attempt`
raises nothing but BackendError (and cancellation), so whatever it raises counts against the variant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from gateway.backends import base
from gateway.backends.hop import end_to_end
from gateway.backends.http import HttpBackend
from gateway.backends.onnx import OnnxModel
from gateway.errors import BackendError, BadOutput, RequestError
from gateway.serving import oip
from gateway.serving.asgi import REQUEST_ID, Exchange, Headers
from gateway.serving.table import Endpoint, Variant


class Answer(NamedTuple):
    """What a variant said. `failure` is set where its status counts as an error although it can be passed on."""

    status: int
    headers: Headers
    body: bytes
    failure: str = ""


@dataclass(slots=True)
class Call:
    """One inference request, ready to be put to any variant of its endpoint."""

    request: base.Request
    infer: oip.InferRequest | None = None
    model_name: str = ""

    async def attempt(self, variant: Variant, deadline: float) -> Answer:
        if isinstance(variant.backend, HttpBackend):
            return await self._over_http(variant.backend, deadline)
        return await self._in_process(variant.backend, deadline)

    async def _in_process(self, model: OnnxModel, deadline: float) -> Answer:
        if self.infer is None:
            raise BackendError("an in-process model answers the Open Inference Protocol only")
        outputs = await model.infer(self.infer.inputs, deadline)
        return Answer(200, oip.JSON, oip.render(self.model_name, self.infer, model.signature, outputs))

    async def _over_http(self, backend: HttpBackend, deadline: float) -> Answer:
        answer = await backend.call(self.request, deadline)
        if not 200 <= answer.status <= 599:
            raise BadOutput(f"the upstream answered with the status {answer.status}")
        failure = "status" if answer.status >= 500 else ""
        return Answer(answer.status, _passed_back(answer.status, answer.headers), answer.body, failure)


_OURS = b"x-gateway-"
# Never taken over from a client: they are ours to set, or would let a client speak for the gateway.
_NOT_FORWARDED = frozenset((b"host", b"content-length", b"expect", REQUEST_ID))
# Never taken over from an upstream: the answer gets its own, and two of them would contradict each other.
_NOT_PASSED_BACK = frozenset((b"date", REQUEST_ID))


def prepare(exchange: Exchange, endpoint: Endpoint, target: bytes, body: bytes) -> Call:
    """Check and prepare a request; raises RequestError if the endpoint's models cannot take it."""
    exchange.once(endpoint.unit_header)
    scope = exchange.scope
    if query := scope["query_string"]:
        target += b"?" + query
    method: str = scope["method"]
    headers = _forwarded(exchange, endpoint) if endpoint.forwards else []
    request = base.Request(method.encode(), target, headers, body, _idempotent(endpoint, method))
    if endpoint.signature is None:
        return Call(request)
    if b"inference-header-content-length" in exchange.headers:
        raise RequestError("binary tensors are not supported here: send JSON")
    return Call(request, oip.parse(body, endpoint.signature), endpoint.plan.name)


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
