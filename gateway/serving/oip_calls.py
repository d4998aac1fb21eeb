"""Open Inference Protocol requests, put to models in the process as tensors and to upstreams as the bytes they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from gateway.backends import base
from gateway.backends.onnx import OnnxModel
from gateway.errors import RequestError
from gateway.serving import oip
from gateway.serving.asgi import Exchange
from gateway.serving.calls import Answer, Call, request_of
from gateway.serving.table import Endpoint, Variant


@dataclass(slots=True)
class OipCall(Call):
    endpoint: Endpoint
    infer: oip.InferRequest | None  # None where no variant is in the process: then nobody here reads it

    async def attempt(self, variant: Variant, deadline: float) -> Answer:
        if not isinstance(variant.backend, OnnxModel):
            return await Call.attempt(self, variant, deadline)
        outputs = await self._outputs(variant.backend, deadline)
        assert self.infer is not None
        body = oip.render(self.endpoint.plan.name, self.infer, variant.backend.signature, outputs)
        return Answer(200, oip.JSON, body, "", outputs)

    async def copy(self, variant: Variant, deadline: float) -> Answer:
        """As `attempt`; what no client sees is not rendered."""
        if not isinstance(variant.backend, OnnxModel):
            return await Call.copy(self, variant, deadline)
        return Answer(200, [], b"", outputs=await self._outputs(variant.backend, deadline))

    def asked(self, variant: Variant) -> base.Request:
        return self.request

    async def _outputs(self, model: OnnxModel, deadline: float) -> list[NDArray[Any]]:
        assert self.infer is not None
        return await model.infer(self.infer.inputs, deadline)


async def prepare(exchange: Exchange, endpoint: Endpoint, target: bytes, limit: int) -> OipCall:
    """Check and prepare a request; raises RequestError if the endpoint's models cannot take it."""
    exchange.once(endpoint.unit_header)
    if endpoint.signature is not None and b"inference-header-content-length" in exchange.headers:
        raise RequestError("binary tensors are not supported here: send JSON")
    body = await exchange.body(limit)
    infer = None if endpoint.signature is None else oip.parse(body, endpoint.signature)
    return OipCall(request_of(exchange, endpoint, target, body, whole=True), endpoint, infer)
