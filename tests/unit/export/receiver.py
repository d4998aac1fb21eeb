"""A web server that takes events, as badly as it is told to."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass(slots=True)
class Taken:
    """One request whose body was read to its end."""

    headers: dict[str, str]
    body: bytes

    @property
    def events(self) -> list[dict[str, Any]]:
        if self.headers["content-type"] == "application/x-ndjson":
            return [json.loads(line) for line in self.body.splitlines()]
        found: list[dict[str, Any]] = json.loads(self.body)
        return found


Answer = int | tuple[int, dict[str, str]] | str
# A status, with headers or without; "leave" closes without an answer, "cut" sends half of one, "shut" closes before
# the body is read.


@dataclass(slots=True)
class Receiver:
    """Answers the requests in turn as `answers` say, then with 200; `before` is called with each before its answer."""

    answers: list[Answer] = field(default_factory=list)
    before: Callable[[Taken], None] = lambda _: None
    taken: list[Taken] = field(default_factory=list)  # also those that were refused
    kept: list[Taken] = field(default_factory=list)  # that were answered with 2xx
    _server: Any = None
    _thread: Any = None

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/events"

    @property
    def events(self) -> list[dict[str, Any]]:
        """Everything that was received whole, repeats too."""
        return [event for one in self.taken for event in one.events]


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            answer = receiver.answers.pop(0) if receiver.answers else 200
            if answer == "shut":
                self._leave()
                return
            body = self.rfile.read(int(self.headers["content-length"]))
            one = Taken({name.lower(): value for name, value in self.headers.items()}, body)
            receiver.taken.append(one)
            receiver.before(one)
            if isinstance(answer, str):
                if answer == "cut":
                    self.wfile.write(b"HTTP/1.1 20")
                self._leave()
                return
            status, headers = (answer, {}) if isinstance(answer, int) else answer
            if 200 <= status < 300:
                receiver.kept.append(one)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"so")

        def _leave(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, format: str, *args: object) -> None:
            """The tests say enough."""

    return Handler
