"""https:// upstreams: who is trusted, and that streams and their ends are the same as without."""

from __future__ import annotations

import asyncio
import re
import ssl
from functools import partial
from pathlib import Path

import pytest
import trustme

from gateway.backends.base import Request, Timeouts
from gateway.backends.body import StreamedBody
from gateway.backends.faults import Incomplete
from gateway.backends.http import HttpBackend
from gateway.errors import BackendUnavailable
from tests.integration.backends.upstream import CHUNKED, GET, POST, Peer, Upstream, answer, echoing, soon, until

pytestmark = pytest.mark.anyio

STREAM = Request(b"GET", b"/", [], whole=False)


class Authority:
    """Signs certificates for one test run."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self.file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    def server(self, *names: str) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._ca.issue_cert(*(names or ("127.0.0.1", "localhost"))).configure_cert(context)
        return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


async def test_calls_share_a_verified_connection(authority: Authority) -> None:
    async with Upstream(echoing(answer()), tls=authority.server()) as upstream:
        backend = upstream.backend(ca=authority.file)
        for _ in range(3):
            assert (await backend.call(POST, soon())).body == b"ok"
        assert repr(backend.pool) == "<Pool 0 busy, 1 idle, 0 waiting, 1 opened>"
        assert upstream.requests[0].headers[0] == (b"host", upstream.authority.encode())
        await backend.close()
        await until(lambda: upstream.open == 0)


async def test_name_of_the_url_is_told_to_the_upstream(authority: Authority) -> None:
    context = authority.server()
    named: list[str | None] = []
    context.sni_callback = lambda _, name, __: named.append(name)
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with Upstream(echoing(answer()), tls=context) as upstream:
        backend = HttpBackend(f"https://localhost:{upstream.port}", ca=authority.file)
        assert (await backend.call(GET, soon())).status == 200
        await backend.close()
    assert named == ["localhost"]


async def test_certificate_of_an_unknown_authority(authority: Authority) -> None:
    async with Upstream(echoing(answer()), tls=authority.server()) as upstream:
        backend = upstream.backend()
        with pytest.raises(BackendUnavailable) as caught:
            await backend.call(GET, soon())
        assert re.search("certificate was not accepted: unable to get local issuer", caught.value.about)
        assert (backend.pool.busy, upstream.requests) == (0, [])


async def test_certificate_of_another_host(authority: Authority) -> None:
    async with Upstream(echoing(answer()), tls=authority.server("other.example")) as upstream:
        with pytest.raises(BackendUnavailable) as caught:
            await upstream.backend(ca=authority.file).call(GET, soon())
        assert re.search(r"certificate was not accepted: .*not valid for '127", caught.value.about)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_older_than_tls_1_2(authority: Authority) -> None:
    context = authority.server()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with Upstream(echoing(answer()), tls=context) as upstream:
        with pytest.raises(BackendUnavailable) as caught:
            await upstream.backend(ca=authority.file).call(GET, soon())
        assert re.search("TLS handshake", caught.value.about)
        assert upstream.requests == []


async def test_upstream_that_speaks_no_tls(authority: Authority) -> None:
    async def script(peer: Peer) -> None:
        await peer.read(5)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with Upstream(script) as upstream:
        backend = HttpBackend(f"https://{upstream.authority}", ca=authority.file)
        with pytest.raises(BackendUnavailable) as caught:
            await backend.call(GET, soon())
        assert re.search("TLS handshake failed: WRONG_VERSION_NUMBER", caught.value.about)


@pytest.mark.parametrize("says", [b"", b"x"])
async def test_handshake_that_never_ends(authority: Authority, says: bytes) -> None:
    """`connect_timeout` covers it."""

    async def script(peer: Peer) -> None:
        await peer.gone()

    async with Upstream(script) as upstream:
        backend = HttpBackend(f"https://{upstream.authority}", ca=authority.file, timeouts=Timeouts(connect=0.05))
        with pytest.raises(BackendUnavailable) as caught:
            await backend.call(GET, soon())
        assert re.search("connect timed out", caught.value.about)
        await until(lambda: upstream.open == 0)


async def test_large_bodies_both_ways(authority: Authority) -> None:
    body = bytes(range(256)) * 8192
    async with Upstream(echoing(answer(body)), tls=authority.server()) as upstream:
        backend = upstream.backend(ca=authority.file)
        for _ in range(2):
            got = await backend.call(Request(b"POST", b"/", [], body, whole=False), soon())
            assert isinstance(got.rest, StreamedBody)
            await until(partial(getattr, got.rest, "_paused"))  # more came than fits
            assert got.body + b"".join([piece async for piece in got.rest]) == body
        assert upstream.accepted == 1
        assert [request.body == body for request in upstream.requests] == [True, True]
        await backend.close()


@pytest.mark.parametrize("tail", [b"", b"5\r\nhel"])
async def test_truncated_stream(authority: Authority, tail: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        await passed_on.wait()
        await peer.send(tail)

    passed_on = asyncio.Event()
    async with Upstream(script, tls=authority.server()) as upstream:
        backend = upstream.backend(ca=authority.file)
        got = await backend.call(STREAM, soon())
        assert got.rest is not None
        passed_on.set()
        with pytest.raises(Incomplete):
            assert [piece async for piece in got.rest] == []
        assert (backend.pool.busy, backend.pool.idle) == (0, 0)


@pytest.mark.parametrize("whole", [True, False])
async def test_body_until_eof_needs_the_end_that_tls_signs(authority: Authority, whole: bool) -> None:
    """Anybody on the way can close a connection; only the upstream can say that this was all."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        if peer.number == 1:
            peer.reset()

    async with Upstream(script, tls=authority.server()) as upstream:
        backend = upstream.backend(ca=authority.file)
        request = Request(b"POST", b"/", [], whole=whole)
        with pytest.raises(Incomplete):
            await body_of(backend, request)
        assert await body_of(backend, request) == b"half"


async def body_of(backend: HttpBackend, request: Request) -> bytes:
    got = await backend.call(request, soon())
    return got.body + (b"".join([piece async for piece in got.rest]) if got.rest else b"")


async def test_reader_that_leaves_closes_the_connection_at_once(authority: Authority) -> None:
    hung_up = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED)
        await peer.gone()
        hung_up.set()

    async with Upstream(script, tls=authority.server()) as upstream:
        backend = upstream.backend(ca=authority.file)
        got = await backend.call(STREAM, soon())
        assert got.rest is not None
        got.rest.close()
        assert backend.pool.busy == 0
        await hung_up.wait()


def test_file_of_authorities_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        HttpBackend("https://host", ca=tmp_path / "missing.pem")
    with pytest.raises(ValueError, match="no meaning without https"):
        HttpBackend("http://host", ca=tmp_path / "missing.pem")
