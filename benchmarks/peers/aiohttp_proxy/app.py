"""The proxy that one writes with aiohttp: a bare ASGI callable, one client session, users split 80/20 by hash."""

import os
from zlib import crc32

import aiohttp

UPSTREAMS = (os.environ["UPSTREAM_A"], os.environ["UPSTREAM_B"])
HOP = {b"host", b"connection", b"content-length", b"transfer-encoding"}
session: aiohttp.ClientSession | None = None


async def app(scope, receive, send):
    global session
    if session is None:
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False)
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    user = next((value for name, value in scope["headers"] if name == b"x-user-id"), b"")
    upstream = UPSTREAMS[crc32(user) % 100 >= 80]
    headers = {name.decode(): value.decode() for name, value in scope["headers"] if name not in HOP}
    async with session.request(scope["method"], upstream + scope["path"], headers=headers, data=body) as answer:
        content = await answer.read()
        kept = [(name.lower(), value) for name, value in answer.raw_headers if name.lower() not in HOP]
    kept.append((b"content-length", b"%d" % len(content)))
    await send({"type": "http.response.start", "status": answer.status, "headers": kept})
    await send({"type": "http.response.body", "body": content})
