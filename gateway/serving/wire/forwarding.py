"""What upstreams are told of for whom they are asked: x-forwarded-for and its like.

Anybody can send these fields, so they are ours to write; only what a trusted proxy says is passed on. What depends on
the connection alone is worked out once for each, not for each request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from gateway.backends.base import Headers

FOR, HOST, PROTO = b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"
UNIX = "unix"
SCHEME = b"http"  # the data port speaks no TLS
_FURTHER = frozenset((b"x-forwarded-port", b"x-real-ip", b"forwarded"))  # passed on as a trusted proxy says it
FORWARDING = _FURTHER | {FOR, HOST, PROTO}


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
        if len(named) != len(headers) and FOR in named:
            named = {**named, FOR: b", ".join([value for name, value in headers if name == FOR])}
        return self._relayed(named)

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
        if not _FURTHER.isdisjoint(named):
            fields += [(name, named[name]) for name in _FURTHER if name in named]
        return fields
