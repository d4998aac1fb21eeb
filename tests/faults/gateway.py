"""The gateway between a scripted raw client and a scripted raw upstream, and everything that a case must look at: the
bytes of the answer, what the upstream saw, what the log kept, and which variant it counted against.

The upstream is `tests.integration.backends.upstream.Upstream`; the client, `RawClient`, sends the bytes that it is
told to and reads what comes. The worker's clock is a fake one; deadlines of sockets run on the loop's.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from gateway.events import Assignment, Completion
from gateway.http_server import configure
from gateway.plan import EndpointPlan, Role
from gateway.serving.drain import DrainingServer
from gateway.serving.http1.admission import Door
from gateway.serving.http1.head import DEFAULTS, Limits
from gateway.telemetry import metrics
from gateway.telemetry.status_page import Word
from tests.integration.backends.upstream import Peer, answer, reset
from tests.integration.serving.local_worker import LocalWorker, endpoint, http, local_worker, plan, until

LONG = 5.0  # seconds: what only a hanging test waits for
REFUSED = "http://127.0.0.1:1"  # nobody listens on port 1


@dataclass(frozen=True)
class Heard:
    """An answer as it came off the wire."""

    status: int
    fields: list[tuple[str, str]]  # names in lower case
    body: bytes
    whole: bool = True  # False: the connection ended before the answer did

    @property
    def headers(self) -> dict[str, str]:
        return dict(self.fields)

    @property
    def problem(self) -> dict[str, Any]:
        """The body of an error that the gateway made under plain HTTP (RFC 9457), whose form is checked."""
        assert self.headers["content-type"] == "application/problem+json"
        document: dict[str, Any] = json.loads(self.body)
        assert document["status"] == self.status
        assert document["request_id"] == self.headers["x-request-id"]
        return document

    @property
    def proxy_error(self) -> str:
        """The error token of Proxy-Status (RFC 9209), "" for an answer that is not marked as ours."""
        return self.headers.get("proxy-status", "").partition("error=")[2].partition(";")[0]


class RawClient:
    """One client connection that plays bytes, right or wrong."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def half_close(self) -> None:
        """Nothing more will be sent; the answer is awaited."""
        self._writer.write_eof()

    def close(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        """Leave with RST in place of FIN."""
        reset(self._writer)

    async def answer(self, *, head_only: bool = False) -> Heard:
        """The next final answer. EOFError if the connection ends before its head is whole."""
        async with asyncio.timeout(LONG):
            while True:
                head = await self._head()
                status = int(head.split(b" ", 2)[1])
                if status >= 200:
                    break
        fields = [_field(line) for line in head.split(b"\r\n")[1:-2]]
        body, whole = (b"", True) if head_only or status in (204, 304) else await self._body(dict(fields))
        return Heard(status, fields, body, whole)

    async def interim(self) -> int:
        """The status of an interim answer (1xx)."""
        async with asyncio.timeout(LONG):
            status = int((await self._head()).split(b" ", 2)[1])
        assert status < 200
        return status

    async def until(self, piece: bytes) -> bytes:
        """What comes up to these bytes, and with them."""
        async with asyncio.timeout(LONG):
            return await self._reader.readuntil(piece)

    async def chunk(self) -> bytes:
        """The next chunk of an answer in chunked coding, its head skipped; b"" is the last."""
        async with asyncio.timeout(LONG):
            line = await self._reader.readuntil(b"\r\n")
            if line.startswith(b"HTTP/"):
                await self._reader.readuntil(b"\r\n\r\n")
                line = await self._reader.readuntil(b"\r\n")
            return (await self._reader.readexactly(int(line, 16) + 2))[:-2]

    async def pieces(self) -> AsyncIterator[int]:
        """The sizes of what comes of an answer of declared length, up to its end."""
        left = int(dict(map(_field, (await self._head()).split(b"\r\n")[1:-2]))["content-length"])
        while left and (piece := await self._reader.read(1 << 20)):
            left -= len(piece)
            yield len(piece)

    async def rest(self) -> bytes:
        """Everything up to the end of the connection, however that ends."""
        data = bytearray()
        async with asyncio.timeout(LONG):
            with suppress(ConnectionError):
                while piece := await self._reader.read(65536):
                    data += piece
        return bytes(data)

    async def closed(self) -> bool:
        """Whether the gateway closes without another byte."""
        return await self.rest() == b""

    async def _head(self) -> bytes:
        try:
            return await self._reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise EOFError("the connection ended before the head of an answer") from error

    async def _body(self, headers: dict[str, str]) -> tuple[bytes, bool]:
        async with asyncio.timeout(LONG):
            if headers.get("transfer-encoding") == "chunked":
                return await self._chunks()
            if "content-length" not in headers:
                return await self.rest(), True
            try:
                return await self._reader.readexactly(int(headers["content-length"])), True
            except asyncio.IncompleteReadError as error:
                return error.partial, False
            except ConnectionError:
                return b"", False

    async def _chunks(self) -> tuple[bytes, bool]:
        body = bytearray()
        try:
            while size := int(await self._reader.readuntil(b"\r\n"), 16):
                body += await self._reader.readexactly(size)
                await self._reader.readexactly(2)
            await self._reader.readexactly(2)
        except (asyncio.IncompleteReadError, ConnectionError):
            return bytes(body), False
        return bytes(body), True


class Exposure(NamedTuple):
    """What the log kept of one request."""

    assigned: Assignment
    completed: Completion


@dataclass
class Gateway:
    """One worker, served on a port."""

    local: LocalWorker
    limits: Limits = DEFAULTS
    port: int = 0
    server: DrainingServer | None = None
    _clients: list[RawClient] = field(default_factory=list)

    async def publish(self, *endpoints: EndpointPlan, revision: int = 1, **more: Any) -> None:
        await self.local.publish(plan(*endpoints, revision=revision, **more))

    async def connect(self) -> RawClient:
        client = RawClient(*await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 22))
        self._clients.append(client)
        return client

    async def ask(self, data: bytes) -> Heard:
        """One request on a connection of its own, and its answer."""
        client = await self.connect()
        await client.send(data)
        heard = await client.answer(head_only=data.startswith(b"HEAD "))
        client.close()
        return heard

    async def exposure(self) -> Exposure:
        """The one request that the log knows of, once it has ended: exactly one assignment and one completion."""
        (only,) = await self.exposures(1)
        return only

    async def exposures(self, number: int) -> list[Exposure]:
        await until(lambda: len(self.local.facts(Completion)) >= number, f"{number} completions")
        assigned, completed = self.local.facts(Assignment), self.local.facts(Completion)
        assert len(assigned) == len(completed) == number
        ends = {fact.decision: fact for fact in completed}
        return [Exposure(fact, ends[fact.decision]) for fact in assigned]

    def nothing_kept(self) -> None:
        """No request was assigned."""
        self.local.nothing_happened()

    def refused(self, heard: Heard, status: int, reason: str, token: str = "") -> None:
        """It was answered with an error of ours, counted once as the client's, and never assigned."""
        assert heard.status == status, heard
        assert heard.problem["type"] == f"urn:gateway:{reason}"
        # RFC 9209 has a token for what clients do wrong, which is answered with 4xx.
        assert heard.proxy_error == (token or ("http_request_error" if status < 500 else "proxy_internal_response"))
        assert self.rejected(reason) == 1
        self.nothing_kept()

    def counted(self, variant: str, *, name: str = "plain") -> tuple[int, int]:
        """(completions, errors) that the status page counts for a variant: what the kill rule reads."""
        ok, bad = (self.local.count(metrics.COMPLETIONS.name, name, "exp-1", variant, what) for what in ("ok", "error"))
        return ok + bad, bad

    def rejected(self, reason: str) -> int:
        return self.local.count(metrics.REJECTED.name, reason)

    @property
    def connections(self) -> int:
        """Of clients, open now."""
        assert self.server is not None
        return len(self.server.server_state.connections)

    def is_answering(self) -> bool:
        """Whether a request is under way."""
        return bool(self.local.page().word(Word.IN_FLIGHT))

    def user_of(self, variant: str, name: str = "plain") -> bytes:
        return self.local.user_of(variant, name).encode()


def plain(*upstreams: str | tuple[str, ...], share: float = 0, **options: Any) -> EndpointPlan:
    """An endpoint of plain HTTP at /plain: the first upstream is the champion `a`, the second the challenger `b`. More
    than one URL are the replicas of one; `options` are those of both variants."""
    given: list[tuple[str, Role]] = [("a", "champion"), ("b", "challenger")]
    variants = [
        http(name, role, *((urls,) if isinstance(urls, str) else urls), **({"timeout": LONG} | options))
        for (name, role), urls in zip(given, upstreams, strict=False)
    ]
    return endpoint(*variants, share=share, name="plain", protocol="http")


def get(path: str = "/plain/x", *lines: str) -> bytes:
    return request("GET", path, *lines)


def post(body: bytes, path: str = "/plain/x", *lines: str) -> bytes:
    return request("POST", path, *lines, f"content-length: {len(body)}") + body


def request(method: str, path: str, *lines: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: gateway", *lines, "", ""]).encode("latin-1")


async def recording(peer: Peer) -> None:
    """An upstream that takes down whatever it is asked, framed in either way, and answers."""
    while True:
        head = await peer.head()
        body = b"".join(await peer.chunked()) if b"transfer-encoding: chunked" in head.lower() else b""
        if b"content-length: " in head.lower():
            body = await peer.read(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        peer.took(head, body)
        await peer.send(answer())


async def settled(condition: Callable[[], bool], what: str = "") -> None:
    """Wait for a condition, not for a time."""
    await until(condition, what)


async def standing_still(count: Callable[[], int]) -> None:
    """Wait until something has begun to move, and moves no more for a fifth of a second."""
    await until(lambda: count() > 0)
    last, since = count(), asyncio.get_running_loop().time()
    while asyncio.get_running_loop().time() - since < 0.2:
        await asyncio.sleep(0.01)
        if count() != last:
            last, since = count(), asyncio.get_running_loop().time()


@asynccontextmanager
async def open_gateway(data_dir: Path, limits: Limits = DEFAULTS) -> AsyncIterator[Gateway]:
    async with local_worker(data_dir) as local:
        app = local.worker.app
        config = configure(
            app,
            keep_alive=75,
            grace=1,
            protocol=Door(app, limits),
        )
        server = DrainingServer(config, app, local.worker.page, shutdown_delay=0.0, drain=0.0)
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        opened = Gateway(local, limits, listener.getsockname()[1], server)
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        await until(lambda: server.started)
        try:
            yield opened
        finally:
            for client in opened._clients:
                client.close()
            server.should_exit = True
            await serving


def _field(line: bytes) -> tuple[str, str]:
    name, _, value = line.decode("latin-1").partition(": ")
    return name.lower(), value
