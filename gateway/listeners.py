"""The sockets that a node listens on: TCP, IPv4 or IPv6, and files of the system (unix:/path)."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from gateway.errors import GatewayError

BACKLOG = 2048
_NOT_OURS = 0o117  # umask: a socket file is for its owner and group


class ListenError(GatewayError):
    """An address cannot be listened on; the message names it."""

    reason = "listen"


class Address(NamedTuple):
    """A port, or with `path` a socket file."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def listen(address: Address) -> socket.socket:
    """Raises ListenError if it cannot be had."""
    sock = _unbound(address)
    try:
        if address.path:
            _make_way(Path(address.path))
            _bind_file(sock, address.path)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address.host, address.port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ListenError(f"cannot listen on {address}: {error.strerror or error}") from error
    sock.setblocking(False)
    return sock


def address_of(sock: socket.socket) -> Address:
    """Where it listens; port 0 has become the one that the system chose."""
    name = sock.getsockname()
    return Address("", 0, name) if sock.family == socket.AF_UNIX else Address(*name[:2])


def remove(address: Address) -> None:
    """Take a socket file away, once nobody listens on it any more."""
    if address.path:
        with suppress(OSError):
            os.unlink(address.path)


def _unbound(address: Address) -> socket.socket:
    family = socket.AF_UNIX if address.path else socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:  # a system without IPv6
        raise ListenError(f"cannot listen on {address}: {error.strerror}") from error


def _make_way(path: Path) -> None:
    """Remove what a killed node has left; a socket on which somebody answers, or another file, is not ours to take."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "there is a file that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _bind_file(sock: socket.socket, path: str) -> None:
    before = os.umask(_NOT_OURS)  # never open to everybody, not even for a moment
    try:
        sock.bind(path)
    finally:
        os.umask(before)
