"""The data port: a bare ASGI callable that routes a request and turns exceptions into answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from urllib.parse import unquote

from gateway.clock import Clock
from gateway.errors import (
    ClientGone,
    GatewayError,
    MethodNotAllowed,
    NotReady,
    RequestError,
    UnknownEndpoint,
)
from gateway.serving import calls, health, models, oip_calls, openai, problem
from gateway.serving.asgi import REQUEST_ID, Exchange, Receive, Scope, Send
from gateway.serving.calls import Call
from gateway.serving.inference import Inference
from gateway.serving.outcomes import Outcomes
from gateway.serving.table import Endpoint, Table
from gateway.telemetry import metrics
from gateway.telemetry.status_page import StatusPage, Word

log = logging.getLogger(__name__)
_READ = ("GET", "HEAD")


class DataApp:
    """The ASGI application of one worker. `table` is swapped by the plan's follower between two requests."""

    def __init__(self, inference: Inference, outcomes: Outcomes, page: StatusPage, clock: Clock) -> None:
        self.table: Table | None = None
        self.draining = False
        self._inference = inference
        self._outcomes = outcomes
        self._page = page
        self._words = page.words
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange | None = None
        table = self.table
        self._words[Word.IN_FLIGHT] += 1
        if table is not None:
            table.in_flight += 1
        try:
            exchange = Exchange(scope, receive, send, self._clock.monotonic(), self)
            await self._route(exchange, table)
        except ClientGone:
            self._count(metrics.REJECTED.name, (ClientGone.reason,))
        except GatewayError as error:
            await self._refuse(scope, receive, send, exchange, error)
        except Exception:
            log.exception("request failed", extra={"request_id": exchange and exchange.request_id.decode()})
            await self._refuse(scope, receive, send, exchange, GatewayError("the gateway failed"))
        finally:
            self._words[Word.IN_FLIGHT] -= 1
            if table is not None:
                table.in_flight -= 1

    def refused(self, reason: str) -> None:
        """The server has refused what came in the place of a request."""
        self._count(metrics.REJECTED.name, (reason,))

    async def _route(self, exchange: Exchange, table: Table | None) -> None:
        match _segments(exchange.scope["raw_path"]):
            case ["v2", *rest]:
                await self._open_inference(exchange, table, rest)
            case ["v1", "outcomes"]:
                _only(exchange, "POST")
                await self._outcomes.serve(exchange, _served(table))
            case ["v1", *rest]:
                await self._openai(exchange, _served(table), rest)
            case [name, *rest]:
                await self._plain(exchange, _served(table), name, rest)

    async def _open_inference(self, exchange: Exchange, table: Table | None, rest: list[str]) -> None:
        match rest:
            case ["models", "stats"] if table is None or "stats" not in table.endpoints:
                _only(exchange, *_READ)
                raise models.no_statistics()
            case ["models", name, "versions", version, *what]:
                await self._model(exchange, table, (name, version), what)
            case ["models", name, *what]:
                await self._model(exchange, table, (name, ""), what)
            case ["repository", "index"]:
                _only(exchange, "POST")
                await models.index(exchange, _served(table))
            case ["repository", "models", _, "load" | "unload"]:
                _only(exchange, "POST")
                raise models.no_loading()
            case ["health", "live"]:
                _only(exchange, *_READ)
                await health.live(exchange)
            case ["health", "ready"]:
                _only(exchange, *_READ)
                await health.ready(exchange, table)
            case [] | [""]:
                _only(exchange, *_READ)
                await health.server(exchange)
            case _:
                raise UnknownEndpoint(f"there is nothing at /v2/{'/'.join(rest)}")

    async def _model(self, exchange: Exchange, table: Table | None, model: tuple[str, str], what: list[str]) -> None:
        """What is asked of a model, by its name and version."""
        match what:
            case ["infer"]:
                _only(exchange, "POST")
                table = _served(table)
                endpoint = models.find(table, *model)
                await self._infer(exchange, table, endpoint, oip_calls.prepare(exchange, endpoint, table.plan.max_body))
            case [] | ["ready" | "config"]:
                _only(exchange, *_READ)
                await models.describe(exchange, models.find(_served(table), *model), "".join(what))
            case ["stats"]:
                _only(exchange, *_READ)
                models.find(_served(table), *model)
                raise models.no_statistics()
            case _:
                raise UnknownEndpoint(f"there is no {'/'.join(what)!r} of a model")

    async def _plain(self, exchange: Exchange, table: Table, name: str, rest: list[str]) -> None:
        endpoint = table.endpoints.get(name)
        if endpoint is None or endpoint.plan.protocol != "http":
            raise UnknownEndpoint(f"there is no endpoint {name!r}")
        raw: bytes = exchange.scope["raw_path"]
        _no_dots(raw, rest)
        target = raw[raw.find(b"/", 1) :] if rest else b"/"
        await self._infer(exchange, table, endpoint, calls.prepare(exchange, endpoint, target, table.plan.max_body))

    async def _openai(self, exchange: Exchange, table: Table, rest: list[str]) -> None:
        match rest:
            case ["models"]:
                _only(exchange, *_READ)
                await openai.models(exchange, table)
            case ["models", name]:
                _only(exchange, *_READ)
                await openai.model(exchange, table, name)
            case _:
                _only(exchange, "POST")
                _no_dots(exchange.scope["raw_path"], rest)
                asked = await openai.read(exchange, table)
                await self._infer(exchange, table, asked.endpoint, openai.prepare(exchange, asked))

    async def _infer(self, exchange: Exchange, table: Table, endpoint: Endpoint, preparing: Awaitable[Call]) -> None:
        try:
            call = await preparing
            status = await self._inference.serve(exchange, table, endpoint, call)
        except (ClientGone, asyncio.CancelledError):
            endpoint.counters.responded(ClientGone.status)
            raise  # nobody is left to be answered
        except Exception as error:
            endpoint.counters.responded(error.status if isinstance(error, GatewayError) else GatewayError.status)
            raise
        endpoint.counters.responded(status)

    async def _refuse(
        self, scope: Scope, receive: Receive, send: Send, exchange: Exchange | None, error: GatewayError
    ) -> None:
        if isinstance(error, RequestError):
            self._count(metrics.REJECTED.name, (error.reason,))
        if exchange is None:  # the request id itself was refused: answer under a fresh one
            headers = [header for header in scope["headers"] if header[0] != REQUEST_ID]
            exchange = Exchange({**scope, "headers": headers}, receive, send, self._clock.monotonic(), self)
        if exchange.answered:
            return  # half an answer is out; the server cuts the connection, which tells the client
        await exchange.answer(*problem.render(error, scope["path"], exchange.request_id))

    def _count(self, name: str, labels: tuple[str, ...]) -> None:
        self._words[self._page.slot(name, labels)] += 1


def _segments(raw_path: bytes) -> list[str]:
    """The path's segments, each decoded by itself: an encoded slash is part of a name, not a boundary."""
    segments = raw_path[1:].decode("latin-1").split("/")
    return [unquote(segment) for segment in segments] if b"%" in raw_path else segments


def _no_dots(raw: bytes, segments: list[str]) -> None:
    """The bytes of a path go on as they came, so an upstream that resolves dots would leave its own prefix."""
    if b"." not in raw and b"%" not in raw:
        return
    if any(part in (".", "..") for segment in segments for part in segment.replace("\\", "/").split("/")):
        raise RequestError("the path must not contain the segments . and ..")


def _served(table: Table | None) -> Table:
    if table is None:
        raise NotReady("the worker has no plan yet")
    return table


def _only(exchange: Exchange, *methods: str) -> None:
    if exchange.scope["method"] not in methods:
        raise MethodNotAllowed(*methods)
