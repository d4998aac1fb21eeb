"""Variants behind HTTP: what is passed on, what comes back, and when the champion may answer in their place."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
import trustme

from gateway.events import Assignment, Completion
from gateway.plan import EndpointPlan
from gateway.telemetry.status_page import Word
from tests.integration.backends.upstream import Peer, Upstream, answer, echoing, silent
from tests.integration.serving.local_worker import LocalWorker, champion, endpoint, http, infer_body, plan

pytestmark = pytest.mark.anyio
Script = Callable[[Peer], Awaitable[None]]
OK = echoing(answer(b"from the champion"))
BAD = echoing(answer(b"broken", status=b"503 Service Unavailable"))
REFUSED = "http://127.0.0.1:1"  # nobody listens on port 1


def plain(*variants: object, share: float = 0) -> EndpointPlan:
    return endpoint(*variants, share=share, name="plain", protocol="http")  # type: ignore[arg-type]


async def passed_on(worker: LocalWorker, path: str, *headers: tuple[str, str], method: str = "GET") -> Upstream:
    """One request through to an upstream that records it."""
    async with Upstream(OK) as upstream:
        await worker.publish(plan(plain(http("a", "champion", f"http://{upstream.authority}/prefix"))))
        reply = await worker.request(method, path, headers=headers)
        assert reply.status == 200, reply.body
    return upstream


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("/plain", b"GET /prefix/ HTTP/1.1"),
        ("/plain/", b"GET /prefix/ HTTP/1.1"),
        ("/plain/a/b?x=1&y=%20", b"GET /prefix/a/b?x=1&y=%20 HTTP/1.1"),
        ("/plain//x", b"GET /prefix//x HTTP/1.1"),
        ("/plain/a%2Fb", b"GET /prefix/a%2Fb HTTP/1.1"),
        ("/plain/%0d%0aX:%20y", b"GET /prefix/%0d%0aX:%20y HTTP/1.1"),
        ("/plain/%25%32%65", b"GET /prefix/%25%32%65 HTTP/1.1"),
        ("/plain/a;b=c/...", b"GET /prefix/a;b=c/... HTTP/1.1"),
        ("/pl%61in/x", b"GET /prefix/x HTTP/1.1"),
        ("/plain?x=/y/../z", b"GET /prefix/?x=/y/../z HTTP/1.1"),
    ],
)
async def test_the_path_goes_on_as_it_came(worker: LocalWorker, path: str, line: bytes) -> None:
    upstream = await passed_on(worker, path)
    assert [request.line for request in upstream.requests] == [line]


async def test_headers_that_speak_for_the_gateway_or_the_connection_stay_behind(worker: LocalWorker) -> None:
    upstream = await passed_on(
        worker,
        "/plain/x",
        ("Host", "evil"),
        ("Connection", "close, x-named"),
        ("X-Named", "1"),
        ("Transfer-Encoding", "chunked"),
        ("Expect", "100-continue"),
        ("X-Gateway-Decision", "forged"),
        ("X_Gateway_Decision", "forged"),
        ("X_User_Id", "another"),
        ("X_Request_Id", "another"),
        ("X-User-Id", "me"),
        ("X_Harmless", "1"),
        ("Authorization", "Bearer t"),
        ("Accept", "a"),
        ("Accept", "b"),
        ("Non-Ascii", "\xfc"),
        method="POST",
    )
    (request,) = upstream.requests
    headers = [(name.lower(), value) for name, value in request.headers]
    request_ids = [value for name, value in headers if name == b"x-request-id"]
    assert len(request_ids) == 1
    assert len(request_ids[0]) == 32
    assert sorted(header for header in headers if header[0] != b"x-request-id") == [
        (b"accept", b"a"),
        (b"accept", b"b"),
        (b"authorization", b"Bearer t"),
        (b"content-length", b"0"),
        (b"host", upstream.authority.encode()),
        (b"non-ascii", b"\xfc"),
        (b"x-forwarded-host", b"evil"),
        (b"x-forwarded-proto", b"http"),
        (b"x-user-id", b"me"),
        (b"x_harmless", b"1"),
    ]


async def test_what_a_variant_sets_has_no_second_value_under_another_spelling(worker: LocalWorker) -> None:
    async with Upstream(OK) as upstream:
        one = http("a", "champion", f"http://{upstream.authority}")
        await worker.publish(plan(plain(msgspec.structs.replace(one, headers=(("x-api-key", "ours"),)))))
        await worker.request("GET", "/plain/x", headers=[("X_Api_Key", "theirs"), ("X-Api-Key", "theirs")])
    sent = [field for field in upstream.requests[0].headers if field[0].lower().replace(b"_", b"-") == b"x-api-key"]
    assert sent == [(b"x-api-key", b"ours")]


async def test_a_variant_is_trusted_by_the_authorities_that_it_names(worker: LocalWorker, tmp_path: Path) -> None:
    authority, file = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    async with Upstream(OK, tls=server) as upstream:
        stranger = http("a", "champion", f"https://{upstream.authority}")
        await worker.publish(plan(plain(stranger)))
        assert (await worker.request("GET", "/plain/x")).status == 502
        await worker.publish(plan(plain(msgspec.structs.replace(stranger, ca=str(file))), revision=2))
        assert (await worker.request("GET", "/plain/x")).status == 200
        gone = msgspec.structs.replace(stranger, ca=str(tmp_path / "gone.pem"))
        await worker.publish(plan(plain(gone), revision=3))
        assert worker.page().word(Word.PLAN_REFUSED) == 3
        assert (await worker.request("GET", "/plain/x")).status == 200


async def test_the_clients_request_id_goes_on_and_comes_back(worker: LocalWorker) -> None:
    upstream = await passed_on(worker, "/plain/x", ("X-Request-Id", "mine"))
    assert upstream.requests[0].headers.count((b"x-request-id", b"mine")) == 1


async def reply_of(worker: LocalWorker, data: bytes, method: str = "GET") -> tuple[int, list[tuple[bytes, bytes]]]:
    async with Upstream(echoing(data)) as upstream:
        await worker.publish(plan(plain(http("a", "champion", f"http://{upstream.authority}"))))
        reply = await worker.request(method, "/plain/x", headers=[("x-request-id", "mine")])
    fields = [field for field in reply.fields if field[0] != b"x-gateway-decision"]
    assert len(reply.fields) == len(fields) + 1
    return reply.status, fields


async def test_an_answer_passes_with_its_headers_but_cannot_speak_for_the_gateway(worker: LocalWorker) -> None:
    fields = (
        b"Set-Cookie: a=1", b"Set-Cookie: b=2", b"X-Own: \xfc", b"Date: then", b"Server: s", b"X-Request-Id: other",
        b"X-Gateway-Decision: forged", b"Connection: x-hop", b"X-Hop: 1",
    )  # fmt: skip
    status, headers = await reply_of(worker, answer(b"body", *fields, status=b"201 Created"))
    assert status == 201
    assert headers == [
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"x-own", b"\xfc"),
        (b"server", b"s"),
        (b"x-request-id", b"mine"),
        (b"content-length", b"4"),
    ]


@pytest.mark.parametrize(
    ("method", "head", "length"),
    [
        ("HEAD", b"200 OK\r\nContent-Length: 1234", [b"1234"]),
        ("HEAD", b"200 OK\r\nTransfer-Encoding: chunked", []),
        ("GET", b"304 Not Modified\r\nContent-Length: 1234\r\nEtag: x", []),
        ("GET", b"204 No Content", []),
        ("GET", b"200 OK\r\nContent-Length: 0", [b"0"]),
    ],
)
async def test_an_answer_without_a_body_has_one_length_at_most(
    worker: LocalWorker, method: str, head: bytes, length: list[bytes]
) -> None:
    status, headers = await reply_of(worker, b"HTTP/1.1 " + head + b"\r\n\r\n", method)
    assert status == int(head[:3])
    assert [value for name, value in headers if name == b"content-length"] == length


async def test_a_status_that_no_server_can_pass_on_is_a_bad_output(worker: LocalWorker) -> None:
    async with Upstream(echoing(answer(status=b"777 Lucky"))) as upstream:
        await worker.publish(plan(plain(http("a", "champion", f"http://{upstream.authority}"))))
        reply = await worker.request("GET", "/plain/x")
    assert (reply.status, reply.headers["content-type"]) == (502, "application/problem+json")
    assert "777" in reply.error


async def challenged(
    worker: LocalWorker, script: Script | None, method: str, idempotent: bool, timeout: float = 5.0
) -> tuple[int, bytes, Completion, int]:
    """Status, body, completion and the champion's requests, with a challenger that does what the script says."""
    async with Upstream(OK) as sound, Upstream(script or silent) as bad:
        url = f"http://{bad.authority}" if script else REFUSED
        variants = (
            http("a", "champion", f"http://{sound.authority}", idempotent=idempotent),
            http("b", "challenger", url, timeout=timeout, idempotent=idempotent),
        )
        await worker.publish(plan(plain(*variants, share=1)))
        reply = await worker.request(method, "/plain/x", body=b"{}" if method == "POST" else b"")
    (assignment,) = worker.facts(Assignment)
    assert assignment.variant == "b"
    (completion,) = worker.facts(Completion)
    assert completion.status == reply.status
    return reply.status, reply.body, completion, len(sound.requests)


@pytest.mark.parametrize(
    ("script", "timeout", "error"), [(BAD, 5.0, "status"), (None, 5.0, "connect"), (silent, 0.05, "deadline")]
)
@pytest.mark.parametrize(("method", "idempotent"), [("POST", True), ("GET", False)])
async def test_what_may_be_repeated_is_answered_by_the_champion(
    worker: LocalWorker, script: Script | None, timeout: float, error: str, method: str, idempotent: bool
) -> None:
    status, body, completion, asked = await challenged(worker, script, method, idempotent, timeout)
    assert (status, body, asked) == (200, b"from the champion", 1)
    assert (completion.served, completion.error, completion.end) == ("a", error, "answered")


@pytest.mark.parametrize(
    ("script", "timeout", "status", "error"),
    [(BAD, 5.0, 503, "status"), (silent, 0.05, 504, "deadline")],
)
async def test_what_may_not_be_repeated_is_not(
    worker: LocalWorker, script: Script | None, timeout: float, status: int, error: str
) -> None:
    seen, body, completion, asked = await challenged(worker, script, "POST", False, timeout)
    assert (seen, asked) == (status, 0)
    assert (body == b"broken") == (script is BAD)  # the upstream's own error passes unmarked
    assert (completion.served, completion.error) == ("b", error)
    assert completion.end == ("answered" if script is BAD else "failed")


async def test_who_cannot_be_reached_has_heard_nothing_so_the_champion_may_always_answer(worker: LocalWorker) -> None:
    status, body, completion, asked = await challenged(worker, None, "POST", False)
    assert (status, body, asked) == (200, b"from the champion", 1)
    assert (completion.served, completion.error, completion.end) == ("a", "connect", "answered")


async def test_a_client_error_of_the_challenger_is_an_answer(worker: LocalWorker) -> None:
    script = echoing(answer(b"no such thing", status=b"404 Not Found"))
    status, body, completion, asked = await challenged(worker, script, "POST", True)
    assert (status, body, asked) == (404, b"no such thing", 0)
    assert (completion.served, completion.error) == ("b", "")


async def test_an_error_of_the_champion_passes_and_counts(worker: LocalWorker) -> None:
    async with Upstream(BAD) as upstream:
        await worker.publish(plan(plain(http("a", "champion", f"http://{upstream.authority}"))))
        reply = await worker.request("GET", "/plain/x")
    assert (reply.status, reply.body) == (503, b"broken")
    (completion,) = worker.facts(Completion)
    assert (completion.served, completion.end, completion.error) == ("a", "answered", "status")


async def test_an_http_challenger_of_an_in_process_champion_gets_the_clients_bytes(worker: LocalWorker) -> None:
    """And where it fails the champion answers, if the request may be repeated."""
    script = echoing(answer(b'{"outputs":[]}'))
    async with Upstream(script) as upstream:
        remote = http("remote", "challenger", f"http://{upstream.authority}", idempotent=True)
        await worker.publish(plan(endpoint(champion(), remote, share=1)))
        reply = await worker.infer("u")
        assert (reply.status, reply.body) == (200, b'{"outputs":[]}')
        assert upstream.requests[0].body == infer_body()
        assert upstream.requests[0].line == b"POST /v2/models/flight/infer HTTP/1.1"
    reply = await worker.infer("u")
    assert reply.json["model_name"] == "flight"
    assert worker.facts(Completion)[1].served == "logistic"


@pytest.mark.parametrize(
    ("status", "counts"), [(401, True), (403, True), (404, True), (429, True), (400, False), (422, False)]
)
async def test_a_status_that_complains_of_what_the_config_sets_is_the_variants_own(
    worker: LocalWorker, status: int, counts: bool
) -> None:
    async with Upstream(echoing(answer(b"no", status=b"%d No" % status))) as upstream:
        url = f"http://{upstream.authority}"
        own = msgspec.structs.replace(
            http("a", "champion", url), headers=(("authorization", "Bearer x"),), model="theirs"
        )
        for revision, variant in enumerate((http("a", "champion", url), own), start=1):
            await worker.publish(plan(plain(variant), revision=revision))
            assert (await worker.request("GET", "/plain/x")).status == status
    assert [fact.error for fact in worker.facts(Completion)] == ["", "status" if counts else ""]


async def test_trace_goes_to_nobody_for_it_would_bring_back_what_the_config_sets(worker: LocalWorker) -> None:
    await worker.publish(plan(plain(http("a", "champion", REFUSED))))
    reply = await worker.request("TRACE", "/plain/x")
    assert (reply.status, "TRACE" in reply.headers["allow"]) == (405, False)
    worker.nothing_happened()
