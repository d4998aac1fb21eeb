"""uvicorn as every process of a node runs it: the strict parser, no signals, no logs and no guesses of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn


class Server(uvicorn.Server):
    """Set `should_exit` to stop it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the composition root's business: uvicorn would raise them again after its shutdown."""
        yield


def configure(
    app: Any, *, keep_alive: int, grace: int, protocol: Callable[..., asyncio.Protocol] | None = None
) -> uvicorn.Config:
    """`keep_alive` is for idle connections, `grace` for requests in flight at the end; both in seconds. `protocol`
    makes what speaks on a connection, from the arguments that uvicorn gives to its own protocols.

    Else httptools is pinned: uvicorn's other parser accepts requests that can be smuggled.
    """
    return uvicorn.Config(
        app,
        http=protocol or "httptools",  # type: ignore[arg-type]  # uvicorn calls it, and asks for no class
        loop="none",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=keep_alive,
        timeout_graceful_shutdown=grace,
    )
