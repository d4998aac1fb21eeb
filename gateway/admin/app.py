"""The admin port (JSON API) and the metrics port, both small Starlette applications of the control process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.errors import GatewayError, RequestError
from gateway.release.state import Kind

COMMANDS: dict[str, Kind] = {
    "hold": "hold",
    "resume": "resume",
    "drop": "drop",
    "promote": "promote",
    "complete": "complete",
    "rollback": "rollback",
}


class Control(Protocol):
    """What the ports need of the control process. Every call runs on its one control thread."""

    def snapshot(self) -> dict[str, Any]: ...
    async def command(self, endpoint: str, kind: Kind, actor: str, text: str, variant: str) -> None: ...
    async def forget_node(self, number: int, actor: str, text: str) -> None: ...
    async def erase(self, unit: str, endpoint: str, actor: str, text: str) -> dict[str, Any]: ...
    async def ledger(self) -> list[dict[str, Any]]: ...
    async def exposition(self, accept: str) -> tuple[bytes, str]: ...
    async def reload(self) -> list[str]: ...


Handler = Callable[[Request], Awaitable[Response]]


def admin_app(control: Control) -> Starlette:
    """Routes of the admin port."""

    async def healthy(_: Request) -> Response:
        return Response("healthy\n")

    async def ready(_: Request) -> Response:
        snapshot = control.snapshot()
        serving = [worker for worker in snapshot["workers"] if worker["plan_revision"]]
        return Response("ready\n" if serving else "no worker serves yet\n", 200 if serving else 503)

    async def status(_: Request) -> Response:
        return _json(control.snapshot())

    async def ledger(_: Request) -> Response:
        return _json({"decisions": await control.ledger()})

    async def reload(_: Request) -> Response:
        problems = await control.reload()
        return _json({"ok": not problems, "problems": problems}, 422 if problems else 200)

    async def command(request: Request) -> Response:
        verb = request.path_params["verb"]
        if verb not in COMMANDS:
            raise RequestError(f"{verb!r} is none of {sorted(COMMANDS)}")
        body = await _object(request)
        actor, text = str(body.get("actor") or "api"), str(body.get("reason") or "")
        variant = str(body.get("variant") or "")
        await control.command(request.path_params["endpoint"], COMMANDS[verb], actor, text, variant)
        return _json(control.snapshot()["endpoints"][request.path_params["endpoint"]])

    async def forget_node(request: Request) -> Response:
        body = await _object(request)
        actor, text = str(body.get("actor") or "api"), str(body.get("reason") or "")
        await control.forget_node(request.path_params["number"], actor, text)
        return _json({"nodes": control.snapshot()["nodes"]})

    async def erase(request: Request) -> Response:
        body = await _object(request)
        unit = body.get("unit")
        if not (isinstance(unit, str) and unit):
            raise RequestError("expected `unit`, as requests give it")
        endpoint, actor = str(body.get("endpoint") or ""), str(body.get("actor") or "api")
        return _json(await control.erase(unit, endpoint, actor, str(body.get("reason") or "")), 202)

    return Starlette(
        routes=[
            Route("/-/healthy", healthy),
            Route("/-/ready", ready),
            Route("/-/reload", reload, methods=["POST"]),
            Route("/api/status", status),
            Route("/api/decisions", ledger),
            Route("/api/endpoints/{endpoint}/{verb}", command, methods=["POST"]),
            Route("/api/nodes/{number:int}/forget", forget_node, methods=["POST"]),
            Route("/api/erasures", erase, methods=["POST"]),
        ],
        exception_handlers={GatewayError: _problem},
    )


def metrics_app(control: Control) -> Starlette:
    """Routes of the metrics port: read-only."""

    async def scrape(request: Request) -> Response:
        body, content_type = await control.exposition(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    return Starlette(routes=[Route("/metrics", scrape)])


async def _object(request: Request) -> dict[str, Any]:
    raw = await request.body()
    if not raw:
        return {}
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the body is not valid JSON: {error}") from error
    if not isinstance(body, dict):
        raise RequestError("expected an object with `actor`, `reason` and, of several challengers, `variant`")
    return body


def _json(document: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(document), status, media_type="application/json")


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)
    document = {
        "type": f"urn:gateway:{error.reason}",
        "title": error.reason.replace("_", " "),
        "status": error.status,
        "detail": str(error),
    }
    return Response(orjson.dumps(document), error.status, media_type="application/problem+json")
