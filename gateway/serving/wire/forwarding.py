"""What upstreams are told of for whom they are asked: x-forwarded-for and its like.

Anybody can send these fields, so they are ours to write; only what a trusted proxy says is passed on. What depends on
the connection alone is worked out once for each, not for each request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from gateway.backends.base import Headers
from gateway.serving.wire.verdicts import Verdicts

FOR, HOST, PROTO = b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"
UNIX = "unix"
SCHEME = b"http"  # the data port speaks no TLS
_LISTS = (FOR, b"forwarded", b"x-original-forwarded-for")  # each proxy adds to these, be it in a field of its own
_OTHER = frozenset((*_LISTS, b"x-real-ip", b"x-client-ip"))


def is_forwarding(name: bytes) -> bool:
    """Whether a header says for whom, or by what way, its sender asks."""
    return name.startswith(b"x-forwarded-") or name in _OTHER


_further = Verdicts(lambda name: is_forwarding(name) and name not in (FOR, HOST, PROTO))
"""Passed on as a trusted proxy says it."""


class Proxies:
    """The peers that are believed."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        """`UNIX` among the networks stands for whoever may use a socket file."""
        networks = set(networks)
        self._local = UNIX in networks
        self._networks = [ip_network(network) for network in networks - {UNIX}]

    def trust(self, address: IPv4Address | IPv6Address | None) -> bool:
        """Nobody has an address who comes by a socket file."""
        if address is None:
            return self._local
        return any(address in network for network in self._networks)


class Peer:
    """The other end of a client connection; `host` is None where it has no address."""

    __slots__ = ("_address", "_host", "_judges", "_name", "_own", "_trusted")

    def __init__(self, host: str | None) -> None:
        address = None if host is None else ip_address(host.partition("%")[0])
        # A socket for both families shows IPv4 in the form of IPv6.
        self._address = getattr(address, "ipv4_mapped", None) or address
        self._name = b"" if address is None else str(self._address).encode()
        self._judges: Proxies | None = None
        self._trusted = False
        self._host: bytes | None = None
        self._own = self._fields_for(None)

    def fields(self, headers: Headers, named: Mapping[bytes, bytes], proxies: Proxies) -> Headers:
        """For a request with these headers, which are `named` too; not to be changed."""
        if proxies is not self._judges:
            self._judges = proxies
            self._trusted = proxies.trust(self._address)
        host = named.get(b"host")
        if host != self._host:
            self._host = host
            self._own = self._fields_for(host)
        if not self._trusted:
            return self._own
        return self._relayed(named if len(named) == len(headers) else _joined(headers, named))

    def _fields_for(self, host: bytes | None) -> Headers:
        fields = [(PROTO, SCHEME)]
        if self._name:
            fields.append((FOR, self._name))
        if host is not None:
            fields.append((HOST, host))
        return fields

    def _relayed(self, named: Mapping[bytes, bytes]) -> Headers:
        """What the proxy says, and ours where it says nothing; its own address ends the chain."""
        chain = named.get(FOR)
        fields = [(PROTO, named.get(PROTO, SCHEME))]
        if chain is not None:
            fields.append((FOR, b"%b, %b" % (chain, self._name) if self._name else chain))
        elif self._name:
            fields.append((FOR, self._name))
        host = named.get(HOST, self._host)
        if host is not None:
            fields.append((HOST, host))
        fields += [field for field in named.items() if _further[field[0]]]
        return fields


def _joined(headers: Headers, named: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
    """`named`, with the whole of each list."""
    lists = {name: b", ".join([value for known, value in headers if known == name]) for name in _LISTS if name in named}
    return {**named, **lists}
