"""HTTP upstreams behind a real node: the split, what is passed on, and the champion in place of a dead challenger."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from tests.integration.process.conftest import HEAD
from tests.integration.process.node import Load, Node, running

pytestmark = pytest.mark.process


@contextmanager
def upstream(name: str) -> Iterator[str]:
    """A model server that answers with its name and with what it was asked."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two writes

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            seen = {"name": name, "path": self.path, "headers": dict(self.headers), "body": body.decode()}
            answer = json.dumps(seen).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            """The test's own asserts speak."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _config(champion: str, challenger: str, idempotent: bool) -> str:
    return (
        HEAD
        + f"""\
  search-rank:
    protocol: http
    unit: {{from: "header:x-user-id", otherwise: request}}
    variants:
      a: {{role: champion, url: "{champion}", idempotent: {str(idempotent).lower()}}}
      b: {{role: challenger, url: "{challenger}", idempotent: {str(idempotent).lower()}}}
    traffic: {{a: 70%, b: 30%}}
"""
    )


def _ask(node: Node, client: httpx.Client, user: str) -> httpx.Response:
    url = node.url("data", "/search-rank/v1/rank?k=3")
    return client.post(url, content=b"query", headers={"x-user-id": user, "x-gateway-forced": "b", "x-mine": "1"})


def test_requests_are_split_by_user_and_passed_on_whole(tmp_path: Path) -> None:
    with upstream("a") as a, upstream("b") as b:
        config = tmp_path / "gateway.yaml"
        config.write_text(_config(a, b, idempotent=False))
        with running(config, workers=2) as node:
            answers = {user: _ask(node, node.client, user).json() for user in map(str, range(200))}
            again = {user: _ask(node, node.client, user).json()["name"] for user in map(str, range(200))}
    assert {user: answer["name"] for user, answer in answers.items()} == again
    share = sum(name == "b" for name in again.values()) / 200
    assert abs(share - 0.3) < 4 * (0.3 * 0.7 / 200) ** 0.5
    seen = answers["0"]
    headers = {name.lower(): value for name, value in seen["headers"].items()}
    assert (seen["path"], seen["body"], headers["x-mine"]) == ("/v1/rank?k=3", "query", "1")
    assert "x-gateway-forced" not in headers


def test_a_dead_challenger_is_answered_for_by_the_champion(tmp_path: Path) -> None:
    with upstream("a") as a:
        config = tmp_path / "gateway.yaml"
        config.write_text(_config(a, "http://127.0.0.1:9", idempotent=False))  # nobody listens on the discard port
        with running(config, workers=2) as node:
            names = [_ask(node, node.client, str(user)).json()["name"] for user in range(60)]
            assert set(names) == {"a"}
            assert node.total("gateway_fallbacks_total") > 5


def test_load_over_an_upstream_has_no_failures(tmp_path: Path) -> None:
    with upstream("a") as a, upstream("b") as b:
        config = tmp_path / "gateway.yaml"
        config.write_text(_config(a, b, idempotent=False))
        with running(config, workers=2) as node:
            with Load(node, send=lambda client, user: _ask(node, client, user)) as load:
                load.more(300)
            assert load.failures() == {}
            assert node.total("gateway_completions_total") == load.done
