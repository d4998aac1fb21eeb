"""Open Inference Protocol requests, put to models in the process as tensors and to upstreams as the bytes they are."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from numpy.typing import NDArray

from gateway.backends import base
from gateway.backends.onnx import OnnxModel
from gateway.serving import oip
from gateway.serving.asgi import Exchange
from gateway.serving.calls.plain import Answer, Call, request_of
from gateway.serving.oip import proxy
from gateway.serving.tables.table import Endpoint, Variant


@dataclass(slots=True)
class OipCall(Call):
    endpoint: Endpoint
    infer: oip.InferRequest | None  # None where no variant is in the process: then nobody here reads it

    async def attempt(self, variant: Variant, deadline: float) -> Answer:
        if not isinstance(variant.backend, OnnxModel):
            return await self._masked(await Call.attempt(self, variant, deadline))
        outputs = await self._outputs(variant.backend, deadline)
        assert self.infer is not None
        assert self.endpoint.codec is not None
        headers, body = self.endpoint.codec.render(self.infer, outputs)
        if coding := oip.worth_coding(self.infer, body):
            headers, body = await asyncio.to_thread(oip.coded, headers, body, coding)
        return Answer(200, headers, body, "", outputs)

    async def copy(self, variant: Variant, deadline: float) -> Answer:
        """As `attempt`; what no client sees is not rendered."""
        if not isinstance(variant.backend, OnnxModel):
            return await Call.copy(self, variant, deadline)
        return Answer(200, [], b"", outputs=await self._outputs(variant.backend, deadline))

    def asked(self, variant: Variant) -> base.Request:
        if not variant.plan.model:
            return self.request
        return msgspec.structs.replace(self.request, target=proxy.target(self.request.target, variant.plan.model))

    async def _masked(self, answer: Answer) -> Answer:
        plan = self.endpoint.plan
        if not plan.mask_model:
            return answer
        if proxy.heavy(answer.headers, answer.body):
            headers, body = await asyncio.to_thread(proxy.mask, answer.headers, answer.body, plan.name)
        else:
            headers, body = proxy.mask(answer.headers, answer.body, plan.name)
        return replace(answer, headers=headers, body=body)

    async def _outputs(self, model: OnnxModel, deadline: float) -> list[NDArray[Any]]:
        assert self.infer is not None
        return await model.infer(self.infer.inputs, deadline)


async def prepare(exchange: Exchange, endpoint: Endpoint, limit: int) -> OipCall:
    """Check and prepare a request; raises RequestError if the endpoint's models cannot take it."""
    exchange.once(endpoint.unit_header)
    body = await exchange.body(limit)
    request = request_of(exchange, endpoint, exchange.scope["raw_path"], body, whole=True)
    return OipCall(request, endpoint, None if endpoint.codec is None else await _read(exchange, endpoint.codec, body))


async def _read(exchange: Exchange, codec: oip.Codec, body: bytes) -> oip.InferRequest:
    for name in oip.DECIDING:
        exchange.once(name)
    if codec.heavy(body, exchange.headers):
        return await asyncio.to_thread(codec.parse, body, exchange.headers)
    return codec.parse(body, exchange.headers)
