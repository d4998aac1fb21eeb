"""Cases C12, C14, C15, C24, C28 and C29: fields with which a client could speak for somebody else."""

from __future__ import annotations

import pytest

from tests.faults.gateway import Gateway, get, plain, post, recording
from tests.integration.backends.upstream import Received, Upstream, answer, echoing

pytestmark = pytest.mark.anyio
HERE = "127.0.0.0/8"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def passed_on(gateway: Gateway, *lines: str, trusted: tuple[str, ...] = ()) -> dict[str, str]:
    """What the upstream hears of a request with these header lines."""
    async with Upstream(recording) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"), trusted_proxies=trusted)
        heard = await gateway.ask(get("/plain/x", *lines))
        assert heard.status == 200, heard.body
    (received,) = upstream.requests
    return fields(received)


def fields(received: Received) -> dict[str, str]:
    names = received.names()
    assert len(names) == len(set(names)), names
    return {name.decode(): value.decode("latin-1") for name, value in received.headers}


async def test_c12_what_belongs_to_a_connection_stays_there(gateway: Gateway) -> None:
    theirs = [
        b"Connection: x-theirs, keep-alive, x-gateway-decision",
        b"X-Theirs: 1",
        b"Keep-Alive: timeout=5",
        b"Proxy-Authenticate: Basic",
        b"Trailer: x",
        b"Upgrade: h2c",
        b"X-End: 1",
    ]
    async with Upstream(echoing(answer(b"ok", *theirs))) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        heard = await gateway.ask(
            get(
                "/plain/x",
                "connection: x-mine, keep-alive, te",
                "x-mine: 1",
                "keep-alive: timeout=5",
                "te: trailers",
                "trailer: x",
                "proxy-authorization: Basic x",
                "proxy-connection: keep-alive",
                "upgrade: h2c",
                "x-end: 1",
            )
        )
        (received,) = upstream.requests
    assert fields(received).keys() == {"host", "x-end", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"} | {
        "x-request-id"
    }
    hop = {"connection", "x-theirs", "keep-alive", "proxy-authenticate", "trailer", "upgrade"}
    assert not hop & heard.headers.keys()
    assert heard.headers["x-end"] == "1"
    assert heard.headers["x-gateway-decision"]


async def test_c12_nobody_makes_us_drop_what_the_next_one_depends_on(gateway: Gateway) -> None:
    names = "authorization, cookie, content-type, x-request-id, x-forwarded-for, host, traceparent"
    told = await passed_on(
        gateway,
        f"connection: {names}",
        "authorization: Bearer t",
        "cookie: a=b",
        "content-type: text/plain",
        "x-request-id: mine",
        f"traceparent: {PARENT}",
    )
    assert told["authorization"] == "Bearer t"
    assert told["cookie"] == "a=b"
    assert told["content-type"] == "text/plain"
    assert told["x-request-id"] == "mine"
    assert told["x-forwarded-for"] == "127.0.0.1"
    assert told["traceparent"] == PARENT


async def test_c12_a_unit_is_drawn_by_even_if_it_is_named_as_one_of_the_connections(gateway: Gateway) -> None:
    async with Upstream(recording) as one, Upstream(recording) as other:
        await gateway.publish(plain(f"http://{one.authority}", f"http://{other.authority}", share=0.5))
        user = gateway.user_of("b").decode()
        await gateway.ask(get("/plain/x", "connection: x-user-id", f"x-user-id: {user}"))
        assert (await gateway.exposure()).assigned.variant == "b"


FORGED = [
    "x-forwarded-for: 6.6.6.6",
    "x-forwarded-proto: https",
    "x-forwarded-host: bank",
    "x-forwarded-port: 443",
    "x-real-ip: 6.6.6.6",
    "forwarded: for=6.6.6.6;proto=https",
    "x_forwarded_for: 6.6.6.6",
    "x_real_ip: 6.6.6.6",
    "x_forwarded_prefix: /admin",
]
FURTHER = {
    "x-forwarded-ssl": "on",
    "x-forwarded-prefix": "/admin",
    "x-forwarded-server": "bank",
    "x-forwarded-scheme": "https",
    "x-forwarded-client-cert": "Subject=admin",
    "x-forwarded-of-next-year": "1",
    "x-original-forwarded-for": "6.6.6.6",
    "x-client-ip": "6.6.6.6",
}
FORGED += [f"{name}: {value}" for name, value in FURTHER.items()]


@pytest.mark.parametrize("trusted", [(), ("10.0.0.0/8",)])
async def test_c14_what_a_stranger_says_of_itself_is_dropped(gateway: Gateway, trusted: tuple[str, ...]) -> None:
    told = await passed_on(gateway, *FORGED, trusted=trusted)
    assert told["x-forwarded-for"] == "127.0.0.1"
    assert told["x-forwarded-proto"] == "http"
    assert told["x-forwarded-host"] == "gateway"
    assert not [name for name in told if name.startswith(("x_", "x-real", "x-orig", "x-client", "forwarded"))]
    assert len([name for name in told if name.startswith("x-forwarded")]) == 3


async def test_c14_what_a_trusted_proxy_says_is_passed_on(gateway: Gateway) -> None:
    second = ["X-Forwarded-For: 10.1.1.1", "Forwarded: for=10.1.1.1"]
    told = await passed_on(gateway, *FORGED, *second, trusted=("10.0.0.0/8", HERE))
    assert told["x-forwarded-for"] == "6.6.6.6, 10.1.1.1, 127.0.0.1"
    assert (told["x-forwarded-proto"], told["x-forwarded-host"]) == ("https", "bank")
    assert (told["x-forwarded-port"], told["x-real-ip"]) == ("443", "6.6.6.6")
    assert told["forwarded"] == "for=6.6.6.6;proto=https, for=10.1.1.1"
    assert told.items() >= FURTHER.items()
    assert not [name for name in told if "_" in name]


async def test_c14_a_trusted_proxy_that_says_nothing_is_the_client(gateway: Gateway) -> None:
    told = await passed_on(gateway, trusted=(HERE,))
    assert (told["x-forwarded-for"], told["x-forwarded-proto"]) == ("127.0.0.1", "http")
    assert told["x-forwarded-host"] == "gateway"


async def test_c14_another_plan_trusts_others_on_the_same_connection(gateway: Gateway) -> None:
    async with Upstream(recording) as upstream:
        client = await gateway.connect()
        for revision, trusted in enumerate([(), (HERE,), ()], start=1):
            await gateway.publish(plain(f"http://{upstream.authority}"), revision=revision, trusted_proxies=trusted)
            await client.send(get("/plain/x", "x-forwarded-for: 6.6.6.6"))
            assert (await client.answer()).status == 200
    said = [fields(received)["x-forwarded-for"] for received in upstream.requests]
    assert said == ["127.0.0.1", "6.6.6.6, 127.0.0.1", "127.0.0.1"]


@pytest.mark.parametrize("parent", [PARENT, f"cc{PARENT[2:]}-what-the-future-will-be-like"])
async def test_c14_a_trace_goes_on(gateway: Gateway, parent: str) -> None:
    told = await passed_on(gateway, f"traceparent: {parent}", "tracestate: a=b")
    assert (told["traceparent"], told["tracestate"]) == (parent, "a=b")


BROKEN_TRACES = {
    "nothing": [],
    "empty": ["traceparent: "],
    "capitals": [f"traceparent: {PARENT.upper()}"],
    "version ff": [f"traceparent: ff{PARENT[2:]}"],
    "more than version 00 has": [f"traceparent: {PARENT}-more"],
    "no trace": ["traceparent: 00-00000000000000000000000000000000-b7ad6b7169203331-01"],
    "no parent": ["traceparent: 00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01"],
    "too short": [f"traceparent: {PARENT[:-1]}"],
    "no hexadecimal": [f"traceparent: {PARENT.replace('a', 'g')}"],
    "two": [f"traceparent: {PARENT}", f"traceparent: {PARENT}"],
    "what runs in a shell": ["traceparent: $(reboot)"],
}


@pytest.mark.parametrize("case", BROKEN_TRACES)
async def test_c14_a_broken_trace_ends_here_with_its_state(gateway: Gateway, case: str) -> None:
    told = await passed_on(gateway, *BROKEN_TRACES[case], "tracestate: a=b")
    assert not told.keys() & {"traceparent", "tracestate"}


async def test_c15_nobody_chooses_a_variant_or_speaks_for_the_gateway(gateway: Gateway) -> None:
    async with Upstream(recording) as one, Upstream(recording) as other:
        await gateway.publish(plain(f"http://{one.authority}", f"http://{other.authority}", share=0.5))
        user = gateway.user_of("a").decode()
        wishes = ["x-gateway-variant: b", "x-gateway-force: b", "X_Gateway_Variant: b", "x-gateway-shadow: 1"]
        await gateway.ask(get("/plain/x?variant=b", f"x-user-id: {user}", *wishes, "x-gateway-decision: forged"))
        kept = await gateway.exposure()
        assert (kept.assigned.variant, kept.assigned.flags) == ("a", 0)
        assert other.accepted == 0
        assert not [name for name in fields(one.requests[0]) if "gateway" in name]


async def test_c15_an_unknown_segment_is_another(gateway: Gateway) -> None:
    async with Upstream(recording) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        await gateway.ask(get("/plain/x", "x-origin: made up"))
        assert (await gateway.exposure()).assigned.segments == ("other",)


@pytest.mark.parametrize(
    "lines",
    [
        ["connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13", "sec-websocket-key: eA=="],
        ["connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAAP__"],
        ["upgrade: h2c"],
    ],
    ids=["websocket", "h2c", "h2c without connection"],
)
async def test_c24_nothing_is_upgraded(gateway: Gateway, lines: list[str]) -> None:
    async with Upstream(recording) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        client = await gateway.connect()
        await client.send(get("/plain/x", *lines) + get("/plain/next"))
        assert [(await client.answer()).status for _ in range(2)] == [200, 200]
        assert not fields(upstream.requests[0]).keys() & {"connection", "upgrade", "http2-settings"}
        assert [received.line.split()[1] for received in upstream.requests] == [b"/x", b"/next"]


async def test_c28_a_request_told_again_is_the_same_unit(gateway: Gateway) -> None:
    async with Upstream(recording) as one, Upstream(recording) as other:
        await gateway.publish(plain(f"http://{one.authority}", f"http://{other.authority}", share=0.5))
        keys = [f"key-{number}" for number in range(8)]
        for key in keys * 3:
            assert (await gateway.ask(post(b"{}", "/plain/x", f"idempotency-key: {key}"))).status == 200
        kept = await gateway.exposures(24)
    units = [(one.assigned.unit, one.assigned.variant) for one in kept]
    assert units == units[:8] * 3  # a unit votes once
    assert len(set(units)) == 8
    assert {variant for _, variant in units} == {"a", "b"}
    assert all(b"idempotency-key" in received.names() for received in one.requests + other.requests)


async def test_c28_a_unit_of_its_own_goes_before_the_key(gateway: Gateway) -> None:
    async with Upstream(recording) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        await gateway.ask(get("/plain/x", "x-user-id: u"))
        for key in "uv":
            await gateway.ask(get("/plain/x", "x-user-id: u", f"idempotency-key: {key}"))
        await gateway.ask(get("/plain/x", "idempotency-key: u"))  # a key that is spelt as a user is not that user
        units = [kept.assigned.unit for kept in await gateway.exposures(4)]
    assert len(set(units[:3])) == 1
    assert units[3] != units[0]


@pytest.mark.parametrize("keys", [["k" * 256], [""], ["a", "a"]], ids=["too long", "empty", "twice"])
async def test_c28_a_key_that_cannot_be_kept_to_is_refused(gateway: Gateway, keys: list[str]) -> None:
    async with Upstream(recording) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        lines = [f"idempotency-key: {key}" for key in keys]
        gateway.refused(await gateway.ask(get("/plain/x", *lines)), 400, "bad_request")
        assert upstream.accepted == 0


async def test_c29_a_request_without_a_unit_is_one_by_itself(gateway: Gateway) -> None:
    async with Upstream(recording) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"))
        for line in ([], [], ["x-user-id: "], ["x-request-id: r"], ["x-request-id: r"]):
            assert (await gateway.ask(get("/plain/x", *line))).status == 200
        units = [kept.assigned.unit for kept in await gateway.exposures(5)]
    assert len(set(units)) == 4
    assert units[3] == units[4]  # the client's own id makes a repeat recognisable
