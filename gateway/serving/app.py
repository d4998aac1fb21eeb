"""The data port: a bare ASGI callable that routes a request and turns exceptions into answers."""

from __future__ import annotations

import logging

from gateway.clock import Clock
from gateway.errors import (
    BackendError,
    ClientGone,
    GatewayError,
    MethodNotAllowed,
    NotReady,
    RequestError,
    UnknownEndpoint,
)
from gateway.serving import health, problem
from gateway.serving.asgi import REQUEST_ID, Exchange, Receive, Scope, Send
from gateway.serving.calls import prepare
from gateway.serving.inference import Inference
from gateway.serving.outcomes import Outcomes
from gateway.serving.table import Endpoint, Table
from gateway.telemetry import metrics
from gateway.telemetry.status_page import StatusPage, Word

log = logging.getLogger(__name__)
_VERBS = ("infer", "ready", "")


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
            exchange = Exchange(scope, receive, send, self._clock.monotonic(), self.draining)
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

    async def _route(self, exchange: Exchange, table: Table | None) -> None:
        path: str = exchange.scope["path"]
        head, _, rest = path[1:].partition("/")
        if head == "v2":
            await self._open_inference(exchange, table, rest)
        elif path == "/v1/outcomes":
            _only(exchange, "POST")
            await self._outcomes.serve(exchange, _served(table))
        else:
            await self._plain(exchange, _served(table), head)

    async def _open_inference(self, exchange: Exchange, table: Table | None, rest: str) -> None:
        match rest.split("/"):
            case ["models", name, "infer"] | ["models", name, "versions", _, "infer"]:
                _only(exchange, "POST")
                table = _served(table)
                endpoint = table.endpoints.get(name)
                if endpoint is None or endpoint.plan.protocol != "oip":
                    raise UnknownEndpoint(f"there is no model {name!r}")
                await self._infer(exchange, table, endpoint, exchange.scope["raw_path"])
            case ["models", name] | ["models", name, "versions", _]:
                await health.model(exchange, _served(table), name, only_ready=False)
            case ["models", name, "ready"] | ["models", name, "versions", _, "ready"]:
                await health.model(exchange, _served(table), name, only_ready=True)
            case ["health", "live"]:
                await health.live(exchange)
            case ["health", "ready"]:
                await health.ready(exchange, table)
            case [""]:
                await health.server(exchange)
            case _:
                raise UnknownEndpoint(f"there is nothing at /v2/{rest}")

    async def _plain(self, exchange: Exchange, table: Table, name: str) -> None:
        endpoint = table.endpoints.get(name)
        if endpoint is None or endpoint.plan.protocol != "http":
            raise UnknownEndpoint(f"there is no endpoint {name!r}")
        target: bytes = exchange.scope["raw_path"][1 + len(name) :] or b"/"
        await self._infer(exchange, table, endpoint, target)

    async def _infer(self, exchange: Exchange, table: Table, endpoint: Endpoint, target: bytes) -> None:
        body = await exchange.body(table.plan.max_body)
        call = prepare(exchange, endpoint, target, body)
        try:
            status = await self._inference.serve(exchange, table, endpoint, call)
        except BackendError as error:
            self._count(metrics.RESPONSES.name, (endpoint.plan.name, str(error.status)))
            raise
        self._count(metrics.RESPONSES.name, (endpoint.plan.name, str(status)))

    async def _refuse(
        self, scope: Scope, receive: Receive, send: Send, exchange: Exchange | None, error: GatewayError
    ) -> None:
        if isinstance(error, RequestError):
            self._count(metrics.REJECTED.name, (error.reason,))
        if exchange is None:  # the request id itself was refused: answer under a fresh one
            headers = [header for header in scope["headers"] if header[0] != REQUEST_ID]
            exchange = Exchange({**scope, "headers": headers}, receive, send, self._clock.monotonic(), self.draining)
        await exchange.answer(*problem.render(error, scope["path"], exchange.request_id))

    def _count(self, name: str, labels: tuple[str, ...]) -> None:
        self._words[self._page.slot(name, labels)] += 1


def _served(table: Table | None) -> Table:
    if table is None:
        raise NotReady("the worker has no plan yet")
    return table


def _only(exchange: Exchange, method: str) -> None:
    if exchange.scope["method"] != method:
        raise MethodNotAllowed(f"only {method} is answered here")
