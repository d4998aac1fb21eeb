"""Leaving without a reset: whoever the kernel has accepted gets an answer."""

from __future__ import annotations

import asyncio
import socket

import pytest

from gateway.http_server import configure
from gateway.serving.drain import DrainingServer
from gateway.serving.http1.protocol import Http1Protocol
from tests.integration.serving.local_worker import LocalWorker, until

pytestmark = pytest.mark.anyio
REQUEST = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.mark.parametrize("waiting", [0, 1, 50])
async def test_connections_in_the_queue_are_answered_and_later_ones_refused(
    worker: LocalWorker, monkeypatch: pytest.MonkeyPatch, waiting: int
) -> None:
    config = configure(worker.worker.app, keep_alive=75, grace=5, protocol=Http1Protocol)
    server = DrainingServer(config, worker.worker.app, worker.worker.page, shutdown_delay=0.0, drain=5.0)
    listener = socket.create_server(("127.0.0.1", 0), backlog=100)
    address = listener.getsockname()
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    await until(lambda: server.started)

    clients: list[socket.socket] = []
    stop_listening = server._stop_listening

    async def with_late_clients(listeners: list[socket.socket]) -> None:
        # In the tick in which the port is closed: the loop has no chance to accept these, only the kernel has.
        for _ in range(waiting):
            clients.append(socket.create_connection(address))
            clients[-1].sendall(REQUEST)
        await stop_listening(listeners)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)

    monkeypatch.setattr(server, "_stop_listening", with_late_clients)
    server.should_exit = True
    await serving
    assert len(clients) == waiting
    for client in clients:
        answer = client.recv(4096)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert b"connection: close" in answer
        assert client.recv(1) == b""
        client.close()
