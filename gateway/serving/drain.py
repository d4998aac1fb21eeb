"""The HTTP server of a worker, and its way of leaving: no connection is closed under a client's hands.

Not ready and `Connection: close` first, and still accepting, so that balancers look elsewhere; then no new
connections, but an answer for everyone who has one; then the end.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import uvicorn

from gateway.http_server import Server
from gateway.serving.app import DataApp
from gateway.telemetry.status_page import StatusPage, Word

LETTING_GO = 0.01  # seconds in which the loop has surely closed what it was told to


class DrainingServer(Server):
    """uvicorn with another shutdown. Set `should_exit` to begin it."""

    def __init__(
        self, config: uvicorn.Config, app: DataApp, page: StatusPage, shutdown_delay: float, drain: float
    ) -> None:
        super().__init__(config)
        self._app = app
        self._page = page
        self.shutdown_delay = shutdown_delay  # may be made shorter before the shutdown begins
        self._drain = drain

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.draining = True
        self._page.words[Word.DRAINING] = 1
        await asyncio.sleep(self.shutdown_delay)
        await self._stop_listening(sockets or [])
        # A connection that is kept alive gets time for one more request, whose answer closes it.
        deadline = asyncio.get_running_loop().time() + self._drain
        while self.server_state.connections and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)
        # What was cancelled at the end of the grace still writes its completion: the spool must not close before.
        if tasks := set(self.server_state.tasks):
            await asyncio.wait(tasks, timeout=1.0)

    async def _stop_listening(self, listeners: list[socket.socket]) -> None:
        """Close the port. Clients that the kernel had already accepted for us would be reset with it, so they are
        taken in at the last moment, by a copy of the listener that nobody else reads from."""
        copies = [listener.dup() for listener in listeners]
        for server in self.servers:
            server.close()
        for listener in listeners:
            listener.close()
        await asyncio.sleep(LETTING_GO)
        loop = asyncio.get_running_loop()
        for copy in copies:
            waiting = list(_accept_all(copy))
            copy.close()
            for accepted in waiting:
                await loop.connect_accepted_socket(self._protocol, accepted)

    def _protocol(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol


def _accept_all(listener: socket.socket) -> Iterator[socket.socket]:
    listener.setblocking(False)
    while True:
        try:
            accepted, _ = listener.accept()
        except OSError:  # nobody waits any more, or no descriptor is left
            return
        accepted.setblocking(False)
        yield accepted
