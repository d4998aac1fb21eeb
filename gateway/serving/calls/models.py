"""What is said of the models behind /v2: metadata, configuration, readiness, the repository.

For models in the process the table answers. An upstream answers for its own: the champion is asked, and its name
is put into what it says. Nothing here is an exposure.
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from gateway.backends import base
from gateway.backends.upstream import Upstream
from gateway.errors import NotSupported, RequestError, UnknownEndpoint
from gateway.serving import oip
from gateway.serving.asgi import REQUEST_ID, Exchange
from gateway.serving.oip import proxy
from gateway.serving.tables.table import Endpoint, Table

_LARGEST_FILTER = 4096  # bytes of a request for the index
_PASSED_ON = (b"authorization", b"accept")
_PASSED_BACK = (b"content-type", b"content-encoding")


def find(table: Table, name: str, version: str) -> Endpoint:
    """The endpoint of a model, and of a version of it unless that is ""; raises UnknownEndpoint."""
    endpoint = table.endpoints.get(name)
    if endpoint is None or endpoint.plan.protocol != "oip":
        raise UnknownEndpoint(f"there is no model {name!r}")
    if version not in ("", oip.VERSION) and endpoint.codec is not None:
        raise UnknownEndpoint(f"the model {name!r} has no version {version!r}, only {oip.VERSION!r}")
    return endpoint


async def describe(exchange: Exchange, endpoint: Endpoint, what: str) -> None:
    """Metadata (""), `config` or `ready`."""
    if endpoint.signature is None:
        await _ask_champion(exchange, endpoint)
        return
    name = endpoint.plan.name
    match what:
        case "ready":
            await _answer(exchange, {"name": name, "ready": True})
        case "config":
            await _answer(exchange, oip.metadata.configuration(name, endpoint.signature))
        case _:
            await _answer(exchange, oip.metadata.metadata(name, endpoint.signature))


async def index(exchange: Exchange, table: Table) -> None:
    """Every model, or with {"ready": true} those that are known to be ready."""
    ready_only = _filter(await exchange.body(_LARGEST_FILTER))
    found = [
        oip.metadata.index_entry(endpoint.plan.name, endpoint.signature)
        for endpoint in table.endpoints.values()
        if endpoint.plan.protocol == "oip" and not (ready_only and endpoint.signature is None)
    ]
    await _answer(exchange, found)


def no_loading() -> NotSupported:
    return NotSupported("models are loaded and unloaded by the gateway's config file alone: edit the file")


def no_statistics() -> NotSupported:
    return NotSupported("statistics are not answered here: they are at /metrics on the gateway's metrics port")


async def _ask_champion(exchange: Exchange, endpoint: Endpoint) -> None:
    champion = endpoint.champion
    assert isinstance(champion.backend, Upstream)
    headers = [(name, exchange.headers[name]) for name in _PASSED_ON if name in exchange.headers]
    headers.append((REQUEST_ID, exchange.request_id))
    method: str = exchange.scope["method"]
    target: bytes = exchange.scope["raw_path"]
    if champion.plan.model:
        target = proxy.target(target, champion.plan.model)
    request = base.Request(method.encode(), target, headers)
    deadline = asyncio.get_running_loop().time() + champion.plan.timeout
    answer = await champion.backend.call(request, deadline)
    passed = [field for field in answer.headers if field[0] in _PASSED_BACK]
    await exchange.answer(answer.status, *proxy.mask(passed, answer.body, endpoint.plan.name, key=b"name"))


def _filter(body: bytes) -> bool:
    try:
        asked = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the body is not valid JSON: {error}") from error
    if type(asked) is not dict:
        raise RequestError("expected an object")
    return asked.get("ready") is True


async def _answer(exchange: Exchange, document: Any) -> None:
    await exchange.answer(200, oip.JSON, orjson.dumps(document))
