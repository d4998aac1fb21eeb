"""The verbs that steer a running gateway: what they print, and what they say when nobody can do it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner, Result

from gateway.cli.main import main
from gateway.errors import GatewayError, RequestError, StoreUnavailable
from gateway.store.open import open_store
from tests.unit.release.configs import experiment, write


class AdminPort(BaseHTTPRequestHandler):
    """Answers every command alike."""

    answer: ClassVar[tuple[int, dict[str, Any]]]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        status, document = self.answer
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    """Of a gateway whose control process is an AdminPort."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), AdminPort)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    path = write(tmp_path, rank=experiment())
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / "node.json").write_text(json.dumps({"admin": f"127.0.0.1:{server.server_port}"}))
    yield path
    server.shutdown()
    thread.join()
    server.server_close()


def run(verb: str, config: Path, *words: str) -> Result:
    return CliRunner().invoke(main, [verb, "--config", str(config), *words])


def stands(**more: Any) -> tuple[int, dict[str, Any]]:
    return 200, {"status": "running", "champion": "a", "split": {"a": 0.9, "b": 0.1}, **more}


def refused(error: GatewayError) -> tuple[int, dict[str, Any]]:
    """As `admin.app` has it."""
    return error.status, {"type": f"urn:gateway:{error.reason}", "status": error.status, "detail": str(error)}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"experiment": {"hold": "holiday traffic"}},
            "running, held (holiday traffic), champion a, split a 0.9, b 0.1",
        ),
        ({"experiment": {"hold": ""}}, "running, champion a, split a 0.9, b 0.1"),
        ({}, "running, champion a, split a 0.9, b 0.1"),
    ],
)
def test_a_hold_is_said(config: Path, more: dict[str, Any], said: str) -> None:
    AdminPort.answer = stands(**more)
    done = run("hold", config, "rank")
    assert (done.exit_code, done.stdout) == (0, f"rank: {said}\n")


@pytest.fixture(scope="module")
def away() -> StoreUnavailable:
    """What a server that is not there is told as, the second time too."""
    with closing(open_store("postgresql://x@127.0.0.1:1/y")) as store:
        for _ in range(2):
            with pytest.raises(StoreUnavailable) as caught:
                store.last_step()
    return caught.value


@pytest.mark.parametrize("words", [("hold", "rank"), ("erase", "--unit", "user-7"), ("forget-node", "7")])
def test_without_the_store_nothing_is_done_and_nothing_promised(
    config: Path, away: StoreUnavailable, words: tuple[str, ...]
) -> None:
    AdminPort.answer = refused(away)
    done = run(words[0], config, *words[1:])
    assert done.exit_code == 1
    assert done.stderr.startswith("gateway: nothing was done, and will not be by itself: ")
    assert "cannot be reached" in done.stderr
    assert "--local" not in done.stderr


def test_without_the_store_a_rollback_names_what_the_node_can_do_itself(config: Path, away: StoreUnavailable) -> None:
    local = f"`gateway rollback --local --config {config} rank` stops the challengers on this node at once\n"
    AdminPort.answer = refused(away)
    done = run("rollback", config, "rank")
    assert (done.exit_code, done.stderr.endswith(local)) == (1, True), done.stderr
    (config.parent / "data" / "node.json").write_text('{"admin": "127.0.0.1:1"}')
    done = run("rollback", config, "rank")
    assert done.stderr.startswith("gateway: no gateway answers at 127.0.0.1:1: ")
    assert (done.exit_code, done.stderr.endswith(local)) == (1, True), done.stderr


def test_a_store_that_broke_off_may_have_done_it(config: Path) -> None:
    AdminPort.answer = refused(StoreUnavailable("db: the connection is closed"))
    done = run("hold", config, "rank")
    assert "perhaps nothing was done, `gateway status` tells: db: the connection is closed" in done.stderr


def test_what_is_refused_is_said_as_it_is(config: Path) -> None:
    AdminPort.answer = refused(RequestError("rolled_back: promote is not possible"))
    assert run("rollback", config, "rank").stderr == "gateway: rolled_back: promote is not possible\n"


def test_the_help_of_a_local_rollback_says_what_becomes_of_it() -> None:
    told = " ".join(CliRunner().invoke(main, ["rollback", "--help"]).stdout.split())
    assert "When they are back it becomes a rollback on every node, in the ledger." in told
