"""For whom upstreams are told that they are asked."""

from __future__ import annotations

import pytest

from gateway.serving.wire.forwarding import Peer, Proxies

STRANGERS = Proxies()
LAN = Proxies(["10.0.0.0/8", "fd00::/8"])
HOST = (b"host", b"gateway")


def told(peer: Peer, *headers: tuple[bytes, bytes], proxies: Proxies = LAN) -> dict[bytes, bytes]:
    return dict(peer.fields(list(headers), dict(headers), proxies))


@pytest.mark.parametrize(
    ("host", "name"),
    [("10.0.0.1", b"10.0.0.1"), ("::ffff:10.0.0.1", b"10.0.0.1"), ("fd00::1%eth0", b"fd00::1"), ("::1", b"::1")],
)
def test_an_address_is_spelt_in_one_way(host: str, name: bytes) -> None:
    assert told(Peer(host), HOST, proxies=STRANGERS)[b"x-forwarded-for"] == name


@pytest.mark.parametrize("host", ["10.1.2.3", "::ffff:10.1.2.3", "fd00::1"])
def test_who_is_within_a_network_is_believed(host: str) -> None:
    assert told(Peer(host), HOST, (b"x-forwarded-proto", b"https"))[b"x-forwarded-proto"] == b"https"


@pytest.mark.parametrize("host", ["11.1.2.3", "::1", None])
def test_who_is_outside_is_not(host: str | None) -> None:
    assert told(Peer(host), HOST, (b"x-forwarded-proto", b"https"))[b"x-forwarded-proto"] == b"http"


def test_who_has_no_address_has_none() -> None:
    assert told(Peer(None), HOST) == {b"x-forwarded-proto": b"http", b"x-forwarded-host": b"gateway"}


def test_who_may_use_a_socket_file_is_believed_where_that_is_said() -> None:
    said = {b"x-forwarded-for": b"1.2.3.4", b"x-forwarded-proto": b"https", b"x-forwarded-host": b"gateway"}
    assert told(Peer(None), HOST, *said.items(), proxies=Proxies(["unix", "10.0.0.0/8"])) == said
    assert b"x-forwarded-for" not in told(Peer(None), HOST, proxies=Proxies(["unix"]))


def test_a_request_without_a_host_has_none() -> None:
    assert told(Peer("11.0.0.1")) == {b"x-forwarded-proto": b"http", b"x-forwarded-for": b"11.0.0.1"}
    assert told(Peer("10.0.0.1"), (b"x-real-ip", b"1.2.3.4")).keys() == {
        b"x-forwarded-proto",
        b"x-forwarded-for",
        b"x-real-ip",
    }


def test_each_request_has_its_own_host() -> None:
    peer = Peer("11.0.0.1")
    assert [told(peer, (b"host", name))[b"x-forwarded-host"] for name in (b"a", b"a", b"b")] == [b"a", b"a", b"b"]


def test_a_chain_of_several_fields_is_one() -> None:
    chain = [(b"x-forwarded-for", b"1.1.1.1, 2.2.2.2"), (b"accept", b"*/*"), (b"x-forwarded-for", b"3.3.3.3")]
    assert told(Peer("10.0.0.1"), HOST, *chain)[b"x-forwarded-for"] == b"1.1.1.1, 2.2.2.2, 3.3.3.3, 10.0.0.1"


def test_every_field_that_proxies_write_is_passed_on_and_lists_are_joined() -> None:
    said = {
        b"x-forwarded-prefix": b"/api",
        b"x-forwarded-whatever": b"comes next",
        b"x-client-ip": b"1.1.1.1",
        b"x-original-forwarded-for": b"1.1.1.1",
        b"forwarded": b"for=1.1.1.1, for=2.2.2.2;proto=https",
    }
    sent = [*said.items(), (b"accept", b"*/*")]
    sent[4:5] = [(b"forwarded", b"for=1.1.1.1"), (b"forwarded", b"for=2.2.2.2;proto=https")]
    heard = told(Peer("10.0.0.1"), HOST, *sent)
    assert {name: heard[name] for name in said} == said
    assert b"accept" not in heard
    assert not said.keys() & told(Peer("11.0.0.1"), HOST, *sent)
