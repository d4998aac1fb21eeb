"""Liveness, readiness and metadata of the Open Inference Protocol, answered from the table alone."""

from __future__ import annotations

import orjson

from gateway import __version__
from gateway.errors import NotReady, UnknownEndpoint
from gateway.serving import oip
from gateway.serving.asgi import Exchange
from gateway.serving.table import Table

_SERVER = orjson.dumps({"name": "gateway", "version": __version__, "extensions": []})


async def server(exchange: Exchange) -> None:
    await exchange.answer(200, oip.JSON, _SERVER)


async def live(exchange: Exchange) -> None:
    await exchange.answer(200, oip.JSON, b'{"live":true}')


async def ready(exchange: Exchange, table: Table | None) -> None:
    """Ready when a plan is served and the worker is not draining."""
    if table is None or exchange.draining:
        raise NotReady("draining" if exchange.draining else "no plan yet")
    await exchange.answer(200, oip.JSON, b'{"ready":true}')


async def model(exchange: Exchange, table: Table, name: str, *, only_ready: bool) -> None:
    endpoint = table.endpoints.get(name)
    if endpoint is None or endpoint.plan.protocol != "oip":
        raise UnknownEndpoint(f"there is no model {name!r}")
    if only_ready:
        await exchange.answer(200, oip.JSON, orjson.dumps({"name": name, "ready": True}))
    elif endpoint.signature is None:
        await exchange.answer(200, oip.JSON, orjson.dumps({"name": name, "platform": "", "inputs": [], "outputs": []}))
    else:
        await exchange.answer(200, oip.JSON, oip.metadata(name, endpoint.signature))
