"""Liveness, readiness and metadata of the server, answered from the table alone."""

from __future__ import annotations

import orjson

from gateway import __version__
from gateway.errors import NotReady
from gateway.serving import oip
from gateway.serving.asgi import Exchange
from gateway.serving.tables.table import Table

_SERVER = orjson.dumps(
    {"name": "gateway", "version": __version__, "extensions": ["binary_tensor_data", "model_configuration"]}
)


async def server(exchange: Exchange) -> None:
    await exchange.answer(200, oip.JSON, _SERVER)


async def live(exchange: Exchange) -> None:
    await exchange.answer(200, oip.JSON, b'{"live":true}')


async def ready(exchange: Exchange, table: Table | None) -> None:
    """Ready when a plan is served and the worker is not draining."""
    if table is None or exchange.draining:
        raise NotReady("draining" if exchange.draining else "no plan yet")
    await exchange.answer(200, oip.JSON, b'{"ready":true}')
