"""The proxy that one writes with Starlette and httpx: one client, users split 80/20 by hash."""

import os
from zlib import crc32

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

UPSTREAMS = (os.environ["UPSTREAM_A"], os.environ["UPSTREAM_B"])
HOP = {"host", "connection", "content-length", "transfer-encoding"}
client = httpx.AsyncClient(limits=httpx.Limits(max_connections=None, max_keepalive_connections=512))


async def forward(request: Request) -> Response:
    user = request.headers.get("x-user-id", "")
    upstream = UPSTREAMS[crc32(user.encode()) % 100 >= 80]
    headers = {name: value for name, value in request.headers.items() if name not in HOP}
    answer = await client.request(
        request.method, upstream + request.url.path, headers=headers, content=await request.body()
    )
    kept = {name: value for name, value in answer.headers.items() if name not in HOP}
    return Response(answer.content, answer.status_code, kept)


app = Starlette(routes=[Route("/{path:path}", forward, methods=["GET", "POST"])])
