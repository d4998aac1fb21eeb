"""Cases C1, C2, C5, C10, C11, C13, C25 and C26: heads that are late, too long, or that say what no head may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.serving.http1.head import Limits
from tests.faults.gateway import Gateway, get, open_gateway, plain, post, recording, request, settled
from tests.integration.backends.upstream import Upstream

pytestmark = pytest.mark.anyio
SHORT = Limits(head_timeout=0.1, linger=0.1)
PROMPT = 0.5  # seconds: far more than an answer takes


async def test_c1_a_slow_head_is_answered_408_and_harms_nobody(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, Limits(head_timeout=1.0, linger=0.1)) as gateway, Upstream(recording) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        slow = [await gateway.connect() for _ in range(200)]
        for client in slow:
            await client.send(b"GET /plain/x HTTP/1.1\r\nhost: x\r\n")
        assert {(await gateway.ask(get())).status for _ in range(20)} == {200}
        for client in slow:
            await client.send(b"a: b\r\n")  # does not put the end off
        heard = [await client.answer() for client in slow]
        assert {(one.status, one.proxy_error, one.problem["title"]) for one in heard} == {
            (408, "http_request_error", "request timeout")
        }
        assert all([await client.closed() for client in slow])
        assert gateway.rejected("request_timeout") == 200
        assert len(await gateway.exposures(20)) == len(upstream.requests) == 20


async def test_c2_a_silent_connection_is_closed_without_a_word(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, SHORT) as gateway:
        await gateway.publish(plain("http://127.0.0.1:1"))
        client = await gateway.connect()
        assert await client.closed()
        gateway.nothing_kept()


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (get("/plain/x", "a: " + "a" * 40_000), 431, "head_too_large"),
        (get("/plain/x", *[f"a{n}: b" for n in range(101)]), 431, "head_too_large"),
        (get("/plain/" + "x" * 9_000), 414, "target_too_long"),
        (get("/plain/x")[:-2] + b"a" * (6 << 20), 431, "head_too_large"),  # of a name that never ends
    ],
    ids=["a long field", "many fields", "a long target", "a name without end"],
)
async def test_c5_a_head_that_is_too_large_is_refused_so_that_it_can_be_read(
    gateway: Gateway, data: bytes, status: int, reason: str
) -> None:
    async with Upstream(recording) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        client = await gateway.connect()
        await client.send(data)
        gateway.refused(await client.answer(), status, reason)
        assert await client.closed()
        assert upstream.accepted == 0


HOSTS = {
    "missing": "GET /plain/x HTTP/1.1\r\n\r\n",
    "twice": "GET /plain/x HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    "twice the same": "GET /plain/x HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
    "empty": "GET /plain/x HTTP/1.1\r\nhost: \r\n\r\n",
    "with a user": "GET /plain/x HTTP/1.1\r\nhost: user@a\r\n\r\n",
    "two in one": "GET /plain/x HTTP/1.1\r\nhost: a,b\r\n\r\n",
    "with a path": "GET /plain/x HTTP/1.1\r\nhost: a/b\r\n\r\n",
    "with a blank": "GET /plain/x HTTP/1.1\r\nhost: a b\r\n\r\n",
    "with a port that is none": "GET /plain/x HTTP/1.1\r\nhost: a:b\r\n\r\n",
    "a target with another": "GET http://127.0.0.1:8081/plain/x HTTP/1.1\r\nhost: a\r\n\r\n",
    "a target with a user": "GET http://user@a/plain/x HTTP/1.1\r\nhost: a\r\n\r\n",
}


@pytest.mark.parametrize("case", HOSTS)
async def test_c10_the_host_must_be_one_and_a_host(gateway: Gateway, case: str) -> None:
    async with Upstream(recording) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        client = await gateway.connect()
        await client.send(HOSTS[case].encode())
        gateway.refused(await client.answer(), 400, "bad_request")
        assert await client.closed()
        assert upstream.accepted == 0


METHODS = {
    "CONNECT": (b"CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n", 501, "not_supported"),
    "CONNECT of a path": (request("CONNECT", "/plain/x"), 501, "not_supported"),
    "TRACE": (request("TRACE", "/plain/x"), 405, "method_not_allowed"),
    "OPTIONS *": (request("OPTIONS", "*"), 404, "unknown_endpoint"),
    "GET *": (request("GET", "*"), 400, "bad_request"),
    "an unknown method": (request("BREW", "/plain/x"), 400, "bad_request"),
    "a method in lower case": (request("get", "/plain/x"), 400, "bad_request"),
    "HTTP/0.9": (b"GET /plain/x\r\n\r\n", 505, "version_not_supported"),
    "HTTP/0.9 by its name": (b"GET /plain/x HTTP/0.9\r\nhost: a\r\n\r\n", 505, "version_not_supported"),
    "HTTP/1.2": (b"GET /plain/x HTTP/1.2\r\nhost: a\r\n\r\n", 400, "bad_request"),
    "HTTP/2.0": (b"GET /plain/x HTTP/2.0\r\nhost: a\r\n\r\n", 505, "version_not_supported"),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "bad_request"),
    "a version in lower case": (b"GET /plain/x http/1.1\r\nhost: a\r\n\r\n", 400, "bad_request"),
    "another protocol": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "bad_request"),
}


@pytest.mark.parametrize("case", METHODS)
async def test_c11_what_is_no_method_or_no_version_is_refused(gateway: Gateway, case: str) -> None:
    data, status, reason = METHODS[case]
    async with Upstream(recording) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        gateway.refused(await gateway.ask(data), status, reason)
        assert upstream.accepted == 0


async def test_c13_two_units_are_none(gateway: Gateway) -> None:
    async with Upstream(recording) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        gateway.refused(await gateway.ask(get("/plain/x", "x-user-id: a", "X-User-Id: b")), 400, "bad_request")
        assert upstream.accepted == 0


async def test_c13_a_unit_has_no_twin(gateway: Gateway) -> None:
    """Some upstreams read `x_user_id` as `x-user-id`."""
    async with Upstream(recording) as one, Upstream(recording) as other:
        await gateway.publish(plain(f"http://{one.authority}", f"http://{other.authority}", share=0.5))
        user = gateway.user_of("b")
        await gateway.ask(get("/plain/x", f"x-user-id: {user.decode()}", f"x_user_id: {gateway.user_of('a').decode()}"))
        assert (await gateway.exposure()).assigned.variant == "b"
        assert one.requests == []
        assert [value for name, value in other.requests[0].headers if b"user" in name] == [user]


PATHS = {
    "/plain/../v2/health/ready": 400,
    "/plain/%2e%2e/secret": 400,
    "/plain/a%2f..%2fb": 400,
    "/plain/..;/secret": 400,
    "/plain/a\\..\\b": 400,
    "//plain/x": 404,
    "//admin/": 404,
    "/admin": 404,
    "/-/reload": 404,
    "/api/decisions": 404,
    "/metrics": 404,
    "/%00": 404,
    "/pl%61in%2fx": 404,
    "http://gateway/api/decisions": 404,
}


@pytest.mark.parametrize("path", PATHS)
async def test_c25_no_path_leads_where_it_should_not(gateway: Gateway, path: str) -> None:
    async with Upstream(recording) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}/prefix"))
        reason = {400: "bad_request", 404: "unknown_endpoint"}[PATHS[path]]
        gateway.refused(await gateway.ask(get(path)), PATHS[path], reason)
        assert upstream.accepted == 0


@pytest.mark.parametrize("path", ["/plain/a%00b", "/plain/a;b=c", "/plain//x", "/plain/%2Fx", "/%70lain/x"])
async def test_c25_what_is_below_an_endpoint_stays_below_its_prefix(gateway: Gateway, path: str) -> None:
    async with Upstream(recording) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}/prefix"))
        assert (await gateway.ask(get(path))).status == 200
        (received,) = upstream.requests
        assert received.line == f"GET /prefix{path[path.index('/', 1) :]} HTTP/1.1".encode()


UNITS = {
    "a colour": "\x1b[31mred",
    "10 KiB": "u" * 10_240,
    "Latin-1": "\xfc",
    "markup": "<script>",
    "a format": "%s{0}",
}


@pytest.mark.parametrize("case", UNITS)
async def test_c26_a_unit_is_kept_as_its_digest_only(
    gateway: Gateway, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    unit = UNITS[case]
    async with Upstream(recording) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        heard = await gateway.ask(get("/plain/x", f"x-user-id: {unit}"))
        raw = unit.encode("latin-1")
        if "\x1b" in unit:  # RFC 9110 5.5: no field value has controls in it
            gateway.refused(heard, 400, "bad_request")
        else:
            assert heard.status == 200
            await gateway.exposure()
            assert all(raw not in path.read_bytes() for path in gateway.local.data_dir.rglob("*") if path.is_file())
        assert unit not in caplog.text
        assert raw not in heard.body


async def test_c26_a_field_cannot_end_itself_early(gateway: Gateway) -> None:
    async with Upstream(recording) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        heard = await gateway.ask(post(b"{}", "/plain/x%0d%0aset-cookie:%20a=b", "x-request-id: mine"))
        assert heard.headers["x-request-id"] == "mine"
        assert "set-cookie" not in heard.headers
        await settled(lambda: len(upstream.requests) == 1)
        assert upstream.requests[0].line == b"POST /x%0d%0aset-cookie:%20a=b HTTP/1.1"
