"""A provider of language models on a real socket: chat, completions and embeddings, whole and as event streams.

What it says follows from what it is asked: the model's name comes back, `echo:` messages are repeated word by word. It
remembers every request, and notices who hangs up on a stream.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WORDS = ("It", " is", " all", " the", " same", ".")


@dataclass
class Provider:
    """What it was asked, and how streams ended; `patience` is awaited after the first word of a stream."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    hung_up: threading.Event = field(default_factory=threading.Event)
    patience: threading.Event = field(default_factory=threading.Event)


@contextmanager
def provider() -> Iterator[Provider]:
    known = Provider()
    known.patience.set()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(known))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    known.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield known
    finally:
        known.patience.set()
        server.shutdown()
        thread.join()
        server.server_close()


def events(model: str, *, usage: bool) -> list[bytes]:
    """A whole stream, event by event."""
    common = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, *({"content": word} for word in WORDS), {}]
    more = {"usage": None} if usage else {}
    chunks = [
        {**common, "choices": [{"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}], **more}
        for delta in deltas
    ]
    if usage:
        chunks.append({**common, "choices": [], "usage": USAGE})
    return [*(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks), b"data: [DONE]\n\n"]


USAGE = {"prompt_tokens": 9, "completion_tokens": 6, "total_tokens": 15}


def _handler(known: Provider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            asked = json.loads(body)
            known.bodies.append(body)
            known.asked.append(asked)
            known.headers.append({name.lower(): value for name, value in self.headers.items()})
            if self.path == "/v1/embeddings":
                data = [{"object": "embedding", "index": 0, "embedding": [0.25, 0.5]}]
                self._json(200, {"object": "list", "model": asked["model"], "data": data, "usage": USAGE})
            elif "limit" in json.dumps(asked):
                error = {"message": "slow down", "type": "rate_limit_error", "param": None, "code": "rate_limited"}
                self._json(429, {"error": error}, ("retry-after", "7"))
            elif asked.get("stream"):
                self._stream(asked)
            elif self.path == "/v1/completions":
                choice = {"index": 0, "text": "".join(WORDS), "finish_reason": "stop", "logprobs": None}
                self._json(200, {**_head(asked, "text_completion"), "choices": [choice], "usage": USAGE})
            else:
                message = {"role": "assistant", "content": "".join(WORDS)}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                self._json(200, {**_head(asked, "chat.completion"), "choices": [choice], "usage": USAGE})

        def _json(self, status: int, document: dict[str, Any], *fields: tuple[str, str]) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            for name, value in (("content-type", "application/json"), ("content-length", str(len(body))), *fields):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def _stream(self, asked: dict[str, Any]) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream; charset=utf-8")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            usage = bool((asked.get("stream_options") or {}).get("include_usage"))
            try:
                for number, event in enumerate(events(asked["model"], usage=usage)):
                    if number == 2:
                        known.patience.wait(30)
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))
                self.wfile.write(b"0\r\n\r\n")
            except OSError:
                known.hung_up.set()
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """The test's own asserts speak."""

    return Handler


def _head(asked: dict[str, Any], kind: str) -> dict[str, Any]:
    return {"id": "cmpl-1", "object": kind, "created": 1, "model": asked["model"]}
