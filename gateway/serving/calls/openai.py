"""The OpenAI-compatible dialect: JSON requests below /v1 that name a model, answers in JSON or as an event stream.

Clients name the endpoint as `model`. What a variant calls its model is spliced into the bytes of the request; nothing
is parsed and written anew, so whatever else is in there arrives as it was sent. Answers pass as they come, byte for
byte, unless `mask_model` asks that they, too, name the endpoint.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import orjson

from gateway.backends import base
from gateway.errors import BackendError, RequestError, UnknownEndpoint
from gateway.serving.asgi import Exchange, Headers
from gateway.serving.calls.masking import masked
from gateway.serving.calls.plain import Answer, Call, request_of
from gateway.serving.tables.table import Endpoint, Table, Variant
from gateway.serving.wire.headers import is_coded
from gateway.serving.wire.splice import Span, replaced, top_level

JSON: Headers = [(b"content-type", b"application/json")]


class _Named(msgspec.Struct):
    """All that the gateway itself reads of a request; the rest is between client and upstream."""

    model: str
    stream: bool | None = None


_named = msgspec.json.Decoder(_Named)


@dataclass(slots=True)
class OpenAiCall(Call):
    endpoint: Endpoint
    model: Span  # where the body names it

    def asked(self, variant: Variant) -> base.Request:
        if not variant.plan.model:
            return self.request
        body = replaced(self.request.body, [self.model], orjson.dumps(variant.plan.model))
        return msgspec.structs.replace(self.request, body=body)

    def told(self, answer: Answer) -> Answer:
        plan = self.endpoint.plan
        if answer.events and self.says_it_failed(answer.body):
            answer.failure = "event"
        return masked(answer, b"model", orjson.dumps(plan.name)) if plan.mask_model else answer

    def says_it_failed(self, piece: bytes) -> bool:
        return b'"error"' in piece and _ERROR.search(piece) is not None

    def last_words(self, answer: Answer, failure: BackendError) -> bytes:
        return error_event(str(failure), failure.reason) if answer.events and not is_coded(answer.headers) else b""


# At the start of a line: what a model writes has its line breaks escaped.
_ERROR = re.compile(rb'(?:^|[\r\n])data: ?\{ ?"error" ?: ?[^n ]')  # null is none


class Asked(NamedTuple):
    """A request that names an endpoint."""

    endpoint: Endpoint
    body: bytes
    stream: bool


async def read(exchange: Exchange, table: Table) -> Asked:
    """Raises RequestError if the request names no endpoint, or none that exists."""
    body = await exchange.plain_body(table.plan.max_body)
    named = _read(body)
    return Asked(_endpoint(table, named.model), body, bool(named.stream))


async def prepare(exchange: Exchange, asked: Asked) -> OpenAiCall:
    """Raises RequestError if it is in doubt whose request it is or which model it names, whoever may answer it."""
    exchange.once(asked.endpoint.unit_header)
    span = top_level(asked.body, b"model")
    assert span is not None  # the endpoint was found by it
    # What is to be masked is needed whole; a stream is masked event by event.
    whole = asked.endpoint.plan.mask_model and not asked.stream
    request = request_of(exchange, asked.endpoint, exchange.scope["raw_path"], asked.body, whole=whole)
    return OpenAiCall(request, asked.endpoint, span)


def _endpoint(table: Table, name: str) -> Endpoint:
    endpoint = table.endpoints.get(name)
    if endpoint is None or endpoint.plan.protocol != "openai":
        raise UnknownEndpoint(f"there is no model {name!r}")
    return endpoint


def _read(body: bytes) -> _Named:
    try:
        return _named.decode(body)
    except msgspec.ValidationError as error:
        raise RequestError(f"expected an object with the name of a model in `model`: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the body is not valid JSON: {error}") from error


async def models(exchange: Exchange, table: Table) -> None:
    """GET /v1/models: the endpoints that speak this dialect."""
    data = [_model_object(endpoint) for endpoint in table.endpoints.values() if endpoint.plan.protocol == "openai"]
    await exchange.answer(200, JSON, orjson.dumps({"object": "list", "data": data}))


async def model(exchange: Exchange, table: Table, name: str) -> None:
    """GET /v1/models/{name}."""
    await exchange.answer(200, JSON, orjson.dumps(_model_object(_endpoint(table, name))))


def _model_object(endpoint: Endpoint) -> dict[str, object]:
    return {"id": endpoint.plan.name, "object": "model", "created": 0, "owned_by": "gateway"}


def error_body(message: str, reason: str, *, asked_for: bool) -> bytes:
    """As the provider's own clients read it; `asked_for`: the client is to mend it."""
    kind = "invalid_request_error" if asked_for else "server_error"
    code = "model_not_found" if reason == UnknownEndpoint.reason else reason
    return orjson.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


def error_event(message: str, reason: str) -> bytes:
    """The last event of a stream that cannot go on: the status went out long ago. The one before it may be half."""
    return b"\n\ndata: " + error_body(message, reason, asked_for=False) + b"\n\n"
