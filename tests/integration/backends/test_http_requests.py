"""What goes out: the bytes of a request, and the URLs that are taken."""

from __future__ import annotations

import pytest

from gateway.backends.base import Request
from gateway.backends.http import HttpBackend
from tests.integration.backends.upstream import GET, Upstream, answer, echoing, soon

pytestmark = pytest.mark.anyio


async def test_request_is_one_message_with_our_host_and_length() -> None:
    async with Upstream(echoing(answer())) as upstream:
        headers = [(b"accept", b"*/*"), (b"host", b"evil.example"), (b"content-length", b"99")]
        backend = upstream.backend()
        await backend.call(Request(b"POST", b"/v1/x?a=%20", headers, b"body"), soon())
        await backend.close()
        expected = b"POST /v1/x?a=%%20 HTTP/1.1\r\nhost: %b\r\naccept: */*\r\ncontent-length: 4\r\n\r\nbody"
        assert upstream.requests[0].raw == expected % upstream.authority.encode()


async def test_hop_by_hop_fields_and_those_that_connection_names_stay_here() -> None:
    async with Upstream(echoing(answer())) as upstream:
        headers = [
            (b"connection", b"x-private, Authorization , keep-alive"),
            (b"x-private", b"1"),
            (b"authorization", b"Bearer t"),
            (b"keep-alive", b"timeout=5"),
            (b"te", b"trailers"),
            (b"transfer-encoding", b"chunked"),
            (b"upgrade", b"h2c"),
            (b"expect", b"100-continue"),
            (b"proxy-authorization", b"Basic x"),
            (b"x-public", b"2"),
        ]
        backend = upstream.backend()
        await backend.call(Request(b"GET", b"/", headers), soon())
        await backend.close()
        assert upstream.requests[0].headers[1:] == [(b"authorization", b"Bearer t"), (b"x-public", b"2")]


@pytest.mark.parametrize(
    ("method", "body", "length"),
    [(b"GET", b"", []), (b"HEAD", b"", []), (b"POST", b"", [b"0"]), (b"GET", b"x", [b"1"])],
)
async def test_length_is_sent_with_a_body_and_with_methods_that_expect_one(
    method: bytes, body: bytes, length: list[bytes]
) -> None:
    async with Upstream(echoing(answer() if method != b"HEAD" else answer(b""))) as upstream:
        backend = upstream.backend()
        await backend.call(Request(method, b"/", [], body), soon())
        await backend.close()
        sent = [value for name, value in upstream.requests[0].headers if name == b"content-length"]
        assert sent == length


async def test_body_larger_than_what_is_coalesced_arrives_whole() -> None:
    async with Upstream(echoing(answer())) as upstream:
        body = bytes(range(256)) * 8192
        backend = upstream.backend()
        for _ in range(2):
            await backend.call(Request(b"POST", b"/", [], body), soon())
        await backend.close()
        assert [request.body == body for request in upstream.requests] == [True, True]
        assert upstream.accepted == 1


@pytest.mark.parametrize(
    "request_",
    [
        Request(b"GET", b"/ HTTP/1.1\r\nx: y", []),
        Request(b"GET", b"/\n", []),
        Request(b"GET", b"/", [(b"x", b"a\r\nb: c")]),
        Request(b"GET", b"/", [(b"x\ry", b"a")]),
        Request(b"GET /\r\n\r\nGET", b"/", []),
    ],
)
async def test_request_that_would_be_two_is_never_sent(request_: Request) -> None:
    async with Upstream(echoing(answer())) as upstream:
        backend = upstream.backend()
        with pytest.raises(ValueError, match="line break"):
            await backend.call(request_, soon())
        assert (upstream.accepted, backend.pool.busy) == (0, 0)


async def test_prefix_of_the_url_goes_before_the_target() -> None:
    async with Upstream(echoing(answer())) as upstream:
        backend = HttpBackend(f"http://{upstream.authority}/models/a/")
        await backend.call(Request(b"GET", b"/v2?x=1", []), soon())
        await backend.close()
        assert upstream.requests[0].line == b"GET /models/a/v2?x=1 HTTP/1.1"


async def test_ipv6_literal() -> None:
    async with Upstream(echoing(answer()), "::1") as upstream:
        backend = upstream.backend()
        assert (await backend.call(GET, soon())).status == 200
        await backend.close()
        assert upstream.requests[0].headers[0] == (b"host", b"[::1]:%d" % upstream.port)


async def test_name_is_resolved() -> None:
    async with Upstream(echoing(answer())) as upstream:
        backend = HttpBackend(f"http://localhost:{upstream.port}")
        assert (await backend.call(GET, soon())).status == 200
        await backend.close()


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ftp://host", "only http://"),
        ("host:80", "only http://"),
        ("http://", "no host"),
        ("http://user@host", "no meaning"),
        ("http://host/?a=b", "no meaning"),
        ("http://host/#a", "no meaning"),
        ("http://host:99999", "out of range"),
        ("http://h\u00f6st", "printable ASCII"),
        ("http://host/a b", "printable ASCII"),
        ("http://host/\r\nx: y", "printable ASCII"),
    ],
)
async def test_url_that_cannot_be_meant(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        HttpBackend(url)
