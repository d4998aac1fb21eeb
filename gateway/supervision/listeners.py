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
_WILDCARDS = frozenset({"0.0.0.0", "::"})
_NOT_OURS = 0o117  # umask: a socket file is for its owner and group

_File = tuple[int, int, int]  # device, inode, and the time it was made, for inodes are used again


class ListenError(GatewayError):
    """An address cannot be listened on; the message names it."""

    reason = "listen"


class Address(NamedTuple):
    """A port of ours, or with `path` a socket file. Port 0 lets the system choose one."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def overlaps(self, other: Address) -> bool:
        """Whether the two cannot be open at once."""
        if self.path or other.path:
            return self.path == other.path
        if self.port != other.port or not self.port:
            return False
        hosts = {"127.0.0.1" if host == "localhost" else host for host in (self.host, other.host)}
        return len(hosts) == 1 or bool(hosts & _WILDCARDS) or "localhost" in (self.host, other.host)


class Listener(NamedTuple):
    """A socket that listens, and what became of it in the file system."""

    sock: socket.socket
    address: Address  # port 0 has become the one that the system chose
    file: _File | None

    def remove(self) -> None:
        """Take its socket file away, once nobody listens on it any more; unless what is there is somebody else's."""
        with suppress(OSError):
            if self.file is not None and _file(self.address.path) == self.file:
                os.unlink(self.address.path)

    def close(self) -> None:
        self.sock.close()
        self.remove()


def listen(address: Address) -> Listener:
    """Raises ListenError if it cannot be had."""
    sock = _unbound(address)
    file = None
    try:
        if address.path:
            _make_way(Path(address.path))
            _bind_file(sock, address.path)
            file = _file(address.path)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address.host, address.port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ListenError(f"cannot listen on {address}: {error.strerror or error}") from error
    sock.setblocking(False)
    return Listener(sock, address if address.path else Address(*sock.getsockname()[:2]), file)


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


def _file(path: str) -> _File:
    found = os.lstat(path)
    return found.st_dev, found.st_ino, found.st_mtime_ns
