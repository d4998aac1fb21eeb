"""File descriptors: how many this process may have, and how many connections of clients they are enough for."""

from __future__ import annotations

import os
import resource

RESERVE = 64  # for files, resolvers and connections that are turned away
MOST = 65_536  # connections of clients; each takes memory, too


def raise_limit() -> None:
    """As many as this process may give itself."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def room() -> int:
    """How many connections there may be beside what is open now."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return 2 * MOST
    return max(2, limit - len(os.listdir("/proc/self/fd")) - min(RESERVE, limit // 4))


def for_clients(room: int, requests: int) -> int:
    """How many of so many connections clients may have. Each of the requests that are answered at a time may need one
    to an upstream, where as many may be idle."""
    return min(MOST, room - min(room // 2, 2 * requests))
