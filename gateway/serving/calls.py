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
from gateway.errors import BackendError, RequestError
from gateway.serving import oip
from gateway.serving.asgi import Exchange, Headers
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
        failure = "status" if answer.status >= 500 else ""
        return Answer(answer.status, answer.headers, answer.body, failure)


# Never taken over from a client: the first is ours to set, the others would let a client speak for the gateway.
_NOT_FORWARDED = frozenset((b"host", b"content-length", b"expect"))


def prepare(exchange: Exchange, endpoint: Endpoint, target: bytes, body: bytes) -> Call:
    """Check and prepare a request; raises RequestError if the endpoint's models cannot take it."""
    scope = exchange.scope
    if query := scope["query_string"]:
        target += b"?" + query
    headers = [
        header
        for header in end_to_end(scope["headers"])
        if header[0] not in _NOT_FORWARDED and not header[0].startswith(b"x-gateway-")
    ]
    method: str = scope["method"]
    request = base.Request(method.encode(), target, headers, body, _idempotent(endpoint, method))
    if endpoint.signature is None:
        return Call(request)
    if b"inference-header-content-length" in exchange.headers:
        raise RequestError("binary tensors are not supported here: send JSON")
    return Call(request, oip.parse(body, endpoint.signature), endpoint.plan.name)


def _idempotent(endpoint: Endpoint, method: str) -> bool:
    safe = method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")
    return safe or all(variant.plan.idempotent for variant in endpoint.variants.values())
