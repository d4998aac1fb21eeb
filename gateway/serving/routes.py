"""Which path is answered by whom. A route is found at once, and is then waited for: no step of it is a coroutine."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from urllib.parse import unquote

from gateway.errors import ClientGone, GatewayError, MethodNotAllowed, NotReady, RequestError, UnknownEndpoint
from gateway.serving import health
from gateway.serving.asgi import Exchange
from gateway.serving.calls import models, open_inference, openai, plain
from gateway.serving.calls.plain import Call
from gateway.serving.inference import Inference
from gateway.serving.outcomes import Outcomes
from gateway.serving.tables.table import Endpoint, Table

_READ = ("GET", "HEAD")
_METHODS = (*_READ, "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_SPECIAL = re.compile(rb"[.%]")  # what needs a second look in a path


class Router:
    """Knows every path of the data port."""

    def __init__(self, inference: Inference, outcomes: Outcomes) -> None:
        self._inference = inference
        self._outcomes = outcomes

    def route(self, exchange: Exchange, table: Table | None) -> Awaitable[None]:
        """Who answers; raises RequestError if nobody does."""
        raw: bytes = exchange.scope["raw_path"]
        if exchange.scope["method"] == "TRACE":  # an upstream would send back what the config has set for it alone
            raise MethodNotAllowed(*_METHODS)
        if table is not None and (found := self._usual(exchange, table, raw)) is not None:
            return found
        match segments(raw):
            case ["v2", *rest]:
                return self._open_inference(exchange, table, rest)
            case ["v1", "outcomes"]:
                _only(exchange, "POST")
                return self._outcomes.serve(exchange, _served(table))
            case ["v1", *rest]:
                return self._openai(exchange, _served(table), rest)
            case [name, *rest]:
                return self._plain(exchange, _served(table), name, rest)
        raise UnknownEndpoint("there is nothing at /")

    def _usual(self, exchange: Exchange, table: Table, raw: bytes) -> Awaitable[None] | None:
        """Almost every request is an inference, under a path that is spelt in the usual way."""
        limit = table.plan.max_body
        if (endpoint := table.usual.get(raw)) is not None and exchange.scope["method"] == "POST":
            if endpoint.plan.protocol == "oip":
                return self._infer(exchange, table, endpoint, open_inference.prepare(exchange, endpoint, limit))
            return self._infer(exchange, table, endpoint, plain.prepare(exchange, endpoint, b"/", limit))
        end = raw.find(b"/", 1)
        if end > 0 and (endpoint := table.usual.get(raw[:end])) is not None and _SPECIAL.search(raw, end) is None:
            return self._infer(exchange, table, endpoint, plain.prepare(exchange, endpoint, raw[end:], limit))
        return None

    def _open_inference(self, exchange: Exchange, table: Table | None, rest: list[str]) -> Awaitable[None]:
        match rest:
            case ["models", "stats"] if table is None or "stats" not in table.endpoints:
                _only(exchange, *_READ)
                raise models.no_statistics()
            case ["models", name, "versions", version, *what]:
                _no_dots(exchange.scope["raw_path"], [version])
                return self._model(exchange, table, (name, version), what)
            case ["models", name, *what]:
                return self._model(exchange, table, (name, ""), what)
            case ["repository", "index"]:
                _only(exchange, "POST")
                return models.index(exchange, _served(table))
            case ["repository", "models", _, "load" | "unload"]:
                _only(exchange, "POST")
                raise models.no_loading()
            case ["health", "live"]:
                _only(exchange, *_READ)
                return health.live(exchange)
            case ["health", "ready"]:
                _only(exchange, *_READ)
                return health.ready(exchange, table)
            case [] | [""]:
                _only(exchange, *_READ)
                return health.server(exchange)
        raise UnknownEndpoint(f"there is nothing at /v2/{'/'.join(rest)}")

    def _model(
        self, exchange: Exchange, table: Table | None, model: tuple[str, str], what: list[str]
    ) -> Awaitable[None]:
        """What is asked of a model, by its name and version."""
        match what:
            case ["infer"]:
                _only(exchange, "POST")
                table = _served(table)
                endpoint = models.find(table, *model)
                return self._infer(
                    exchange, table, endpoint, open_inference.prepare(exchange, endpoint, table.plan.max_body)
                )
            case [] | ["ready" | "config"]:
                _only(exchange, *_READ)
                return models.describe(exchange, models.find(_served(table), *model), "".join(what))
            case ["stats"]:
                _only(exchange, *_READ)
                models.find(_served(table), *model)
                raise models.no_statistics()
        raise UnknownEndpoint(f"there is no {'/'.join(what)!r} of a model")

    def _plain(self, exchange: Exchange, table: Table, name: str, rest: list[str]) -> Awaitable[None]:
        endpoint = table.endpoints.get(name)
        if endpoint is None or endpoint.plan.protocol != "http":
            raise UnknownEndpoint(f"there is no endpoint {name!r}")
        raw: bytes = exchange.scope["raw_path"]
        _no_dots(raw, rest)
        target = raw[raw.find(b"/", 1) :] if rest else b"/"
        return self._infer(exchange, table, endpoint, plain.prepare(exchange, endpoint, target, table.plan.max_body))

    def _openai(self, exchange: Exchange, table: Table, rest: list[str]) -> Awaitable[None]:
        match rest:
            case ["models"]:
                _only(exchange, *_READ)
                return openai.models(exchange, table)
            case ["models", name]:
                _only(exchange, *_READ)
                return openai.model(exchange, table, name)
        _only(exchange, "POST")
        _no_dots(exchange.scope["raw_path"], rest)
        return self._converse(exchange, table)

    async def _converse(self, exchange: Exchange, table: Table) -> None:
        """Who answers is only known from the body."""
        asked = await openai.read(exchange, table)
        await self._infer(exchange, table, asked.endpoint, openai.prepare(exchange, asked))

    async def _infer(self, exchange: Exchange, table: Table, endpoint: Endpoint, preparing: Awaitable[Call]) -> None:
        try:
            status = await self._inference.serve(exchange, table, endpoint, await preparing)
        except (ClientGone, asyncio.CancelledError):
            endpoint.counters.responded(ClientGone.status)
            raise  # nobody is left to be answered
        except Exception as error:
            endpoint.counters.responded(error.status if isinstance(error, GatewayError) else GatewayError.status)
            raise
        endpoint.counters.responded(status)


def segments(raw_path: bytes) -> list[str]:
    """The path's segments, each decoded by itself: an encoded slash is part of a name, not a boundary."""
    parts = raw_path[1:].decode("latin-1").split("/")
    return [unquote(part) for part in parts] if b"%" in raw_path else parts


def _no_dots(raw: bytes, parts: list[str]) -> None:
    """The bytes of a path go on as they came, so an upstream that resolves dots would leave its own prefix."""
    if _SPECIAL.search(raw) is None:
        return
    pieces = [piece for part in parts for piece in part.replace("\\", "/").split("/")]
    if any(piece.partition(";")[0] in (".", "..") for piece in pieces):  # servlets drop what a semicolon begins
        raise RequestError("the path must not contain the segments . and ..")


def _served(table: Table | None) -> Table:
    if table is None:
        raise NotReady("the worker has no plan yet")
    return table


def _only(exchange: Exchange, *methods: str) -> None:
    if exchange.scope["method"] not in methods:
        raise MethodNotAllowed(*methods)
