"""Answers and uploads that pass while they come: what the client sees, what is written down, who pays for a break."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.events import Completion, Outcome
from gateway.plan import EndpointPlan, MetricPlan, ReadingPlan
from gateway.serving.asgi import Message, Scope
from gateway.telemetry.status_page import Word
from tests.integration.backends.upstream import LONG, Peer, Upstream, answer
from tests.integration.serving.local_worker import LocalWorker, endpoint, http, plan

pytestmark = pytest.mark.anyio
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
ASKED = json.dumps({"model": "chat", "stream": True, "messages": []}).encode()
FIRST = b'data: {"model":"gpt-a","choices":[{"delta":{"content":"It"}}]}\n\n'
LAST = b'data: {"model":"gpt-a","choices":[],"usage":{"completion_tokens":3}}\n\ndata: [DONE]\n\n'


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def chat(*urls: str, share: float = 0, **more: Any) -> EndpointPlan:
    variants = [http(f"v{place}", "challenger" if place else "champion", url) for place, url in enumerate(urls)]
    return endpoint(*variants, share=share, name="chat", protocol="openai", **more)


@dataclass
class Client:
    """A client that sends a request piece by piece and reads the answer as it comes."""

    sending: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)
    sent: list[Message] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    reads: asyncio.Event = field(default_factory=asyncio.Event)  # cleared: it takes nothing more

    def __post_init__(self) -> None:
        self.reads.set()

    def send(self, piece: bytes, *, more: bool = False) -> None:
        self.sending.put_nowait({"type": "http.request", "body": piece, "more_body": more})

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LONG):
            while not condition():
                self.came.clear()
                await self.came.wait()

    @property
    def status(self) -> int:
        status: int = self.sent[0]["status"]
        return status

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    @property
    def whole(self) -> bool:
        return bool(self.sent) and not self.sent[-1].get("more_body", False) and len(self.sent) > 1


@asynccontextmanager
async def asking(worker: LocalWorker, method: str, path: str, *fields: tuple[bytes, bytes]) -> AsyncIterator[Client]:
    client = Client()
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b""}
    asked: Scope = {**scope, "headers": list(fields)}

    async def answered(message: Message) -> None:
        client.sent.append(message)
        client.came.set()
        await client.reads.wait()

    async def run() -> None:
        await worker.worker.app(asked, client.sending.get, answered)

    client.task = asyncio.get_running_loop().create_task(run())
    try:
        yield client
    finally:
        client.task.cancel()
        await asyncio.gather(client.task, return_exceptions=True)


Script = Callable[[Peer], Awaitable[None]]


def streaming(gate: asyncio.Event, *pieces: bytes) -> Script:
    """The first piece at once, the others when the gate is open."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(HEAD + pieces[0])
            await gate.wait()
            for piece in pieces[1:]:
                await peer.send(piece)

    return script


async def test_events_pass_one_by_one_and_the_completion_is_written_at_the_end(worker: LocalWorker) -> None:
    gate = asyncio.Event()
    async with Upstream(streaming(gate, chunk(FIRST), chunk(LAST), END)) as upstream:
        await worker.publish(plan(chat(f"http://{upstream.authority}")))
        async with asking(worker, "POST", "/v1/chat/completions") as client:
            client.send(ASKED)
            await client.until(lambda: client.body == FIRST)
            assert not worker.facts(Completion)
            assert worker.page().word(Word.IN_FLIGHT) == 1
            worker.clock.advance(2.0)
            gate.set()
            await client.until(lambda: client.whole)
    assert client.body == FIRST + LAST
    (completion,) = worker.facts(Completion)
    assert (completion.end, completion.status, completion.error) == ("answered", 200, "")
    assert (completion.first_byte_us, completion.total_us) == (0, 2_000_000)


async def test_a_stream_is_measured_while_it_passes(worker: LocalWorker) -> None:
    words = ("first_token", "tokens", "aborted")
    metrics = tuple(MetricPlan(name=word, type="bounded", source="answer", high=60) for word in words)
    readings = tuple(ReadingPlan(metric=word, kind="stream", what=word) for word in words)
    gate = asyncio.Event()
    async with Upstream(streaming(gate, b"", chunk(FIRST), chunk(LAST), END)) as upstream:
        await worker.publish(plan(chat(f"http://{upstream.authority}", metrics=metrics, readings=readings)))
        async with asking(worker, "POST", "/v1/chat/completions") as client:
            client.send(ASKED)
            await client.until(lambda: bool(client.sent))
            worker.clock.advance(1.5)
            gate.set()
            await client.until(lambda: client.whole)
    assert {fact.metric: fact.value for fact in worker.facts(Outcome)} == {
        "first_token": 1.5,
        "tokens": 3.0,
        "aborted": 0.0,
    }
    assert worker.count("gateway_stream_tokens", "chat", "v0") == 3


@pytest.mark.parametrize(
    ("head", "piece", "words"),
    [
        (HEAD, FIRST, True),
        (HEAD, FIRST + FIRST[:9], True),  # half an event stays one of its own
        (HEAD.replace(b"Transfer", b"Content-Encoding: gzip\r\nTransfer"), b"\x1f\x8b\x08", False),
    ],
)
async def test_a_stream_that_breaks_off_ends_in_the_words_of_its_clients_and_counts(
    worker: LocalWorker, head: bytes, piece: bytes, words: bool
) -> None:
    async def breaking(peer: Peer) -> None:
        await peer.request()
        await peer.send(head + chunk(piece))

    async with Upstream(breaking) as upstream:
        await worker.publish(plan(chat(f"http://{upstream.authority}")))
        async with asking(worker, "POST", "/v1/chat/completions") as client:
            client.send(ASKED)
            assert client.task is not None
            await asyncio.wait([client.task], timeout=LONG)
    assert client.body.startswith(piece)
    assert client.body.removeprefix(piece).startswith(b'\n\ndata: {"error":{"message":"') == words
    assert words or client.body == piece
    assert not client.whole  # the connection is cut: nobody takes it for the end
    (completion,) = worker.facts(Completion)
    assert (completion.end, completion.error, completion.status) == ("failed", "incomplete", 502)
    assert worker.count("gateway_attempt_errors", "chat", "v0", "incomplete") == 1


async def test_a_challenger_whose_streams_break_off_opens_its_breaker(worker: LocalWorker) -> None:
    gate = asyncio.Event()
    gate.set()

    async def breaking(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + chunk(FIRST))

    sound = streaming(gate, chunk(FIRST), chunk(LAST), END)
    async with Upstream(sound) as champion, Upstream(breaking) as challenger:
        urls = (f"http://{upstream.authority}" for upstream in (champion, challenger))
        await worker.publish(plan(chat(*urls, share=0.5)))
        user = worker.user_of("v1", "chat").encode()
        for _ in range(4):
            async with asking(worker, "POST", "/v1/chat/completions", (b"x-user-id", user)) as client:
                client.send(ASKED)
                assert client.task is not None
                await asyncio.wait([client.task], timeout=LONG)
    assert (client.whole, client.body) == (True, FIRST + LAST)
    facts = worker.facts(Completion)
    assert [fact.error for fact in facts] == ["incomplete"] * 3 + ["breaker"]
    assert [fact.served for fact in facts] == ["v1"] * 3 + ["v0"]


async def test_who_leaves_in_the_middle_stops_the_upstream_and_harms_nobody(worker: LocalWorker) -> None:
    gate = asyncio.Event()
    async with Upstream(streaming(gate, chunk(FIRST))) as upstream:
        await worker.publish(plan(chat(f"http://{upstream.authority}")))
        async with asking(worker, "POST", "/v1/chat/completions") as client:
            client.send(ASKED)
            await client.until(lambda: client.body == FIRST)
            assert client.task is not None
            client.task.cancel()  # as the server does when a client is gone
            await asyncio.wait([client.task], timeout=LONG)
        gate.set()
        async with asyncio.timeout(LONG):
            while upstream.open:
                await asyncio.sleep(0)
    (completion,) = worker.facts(Completion)
    assert (completion.end, completion.error) == ("client_closed", "")
    assert worker.count("gateway_responses", "chat", "499") == 1
    assert worker.count("gateway_streams_aborted", "chat", "v0") == 1
    assert worker.page().word(Word.IN_FLIGHT) == 0


async def test_a_stream_that_goes_on_for_too_long_is_cut(worker: LocalWorker) -> None:
    gate = asyncio.Event()
    async with Upstream(streaming(gate, chunk(FIRST))) as upstream:
        short = replace(http("v0", "champion", f"http://{upstream.authority}"), stream_timeout=0.01)
        await worker.publish(plan(endpoint(short, name="chat", protocol="openai")))
        async with asking(worker, "POST", "/v1/chat/completions") as client:
            client.send(ASKED)
            assert client.task is not None
            await asyncio.wait([client.task], timeout=LONG)
    assert b'data: {"error":{"message":"the answer went on for too long"' in client.body
    (completion,) = worker.facts(Completion)
    assert (completion.end, completion.error, completion.status) == ("failed", "deadline", 504)


async def test_a_client_that_does_not_read_is_gone_and_harms_nobody(worker: LocalWorker) -> None:
    gate = asyncio.Event()
    gate.set()
    async with Upstream(streaming(gate, chunk(FIRST))) as upstream:
        short = replace(http("v0", "champion", f"http://{upstream.authority}"), stream_timeout=0.05)
        await worker.publish(plan(endpoint(short, name="chat", protocol="openai")))
        async with asking(worker, "POST", "/v1/chat/completions") as client:
            client.reads.clear()
            client.send(ASKED)
            assert client.task is not None
            await asyncio.wait([client.task], timeout=LONG)
    (completion,) = worker.facts(Completion)
    assert (completion.end, completion.error, completion.status) == ("client_closed", "", 499)
    assert worker.count("gateway_streams_aborted", "chat", "v0") == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_masked_answer_names_the_endpoint_and_is_else_untouched(worker: LocalWorker, stream: bool) -> None:
    plain = b'{"id":"x", "model" : "gpt-a","choices":[{"model":"gpt-a"}]}'

    async def script(peer: Peer) -> None:
        await peer.request()
        cut = FIRST + LAST
        framed = b"".join(chunk(cut[at : at + 7]) for at in range(0, len(cut), 7))
        await peer.send(HEAD + framed + END if stream else answer(plain, b"Content-Type: application/json"))
        await peer.gone()

    async with Upstream(script) as upstream:
        await worker.publish(plan(chat(f"http://{upstream.authority}", mask_model=True)))
        fields = (b"accept-encoding", b"gzip")
        async with asking(worker, "POST", "/v1/chat/completions", fields) as client:
            client.send(ASKED if stream else ASKED.replace(b"true", b"false"))
            await client.until(lambda: client.whole)
        (seen,) = upstream.requests
    wanted = FIRST + LAST if stream else plain
    assert client.body == (wanted.replace(b'"gpt-a"', b'"chat"', 2) if stream else wanted.replace(b"gpt-a", b"chat", 1))
    assert b"accept-encoding" not in seen.names()


@pytest.mark.parametrize("first", [b'"model":"chat"', b'"mod\\u0065l":"chat"'])
async def test_a_request_that_names_two_models_is_refused_before_anybody_is_drawn(
    worker: LocalWorker, first: bytes
) -> None:
    await worker.publish(plan(chat("http://127.0.0.1:9")))
    reply = await worker.request(path="/v1/chat/completions", body=b"{" + first + b"," + ASKED[1:])
    assert (reply.status, reply.error) == (400, "the key 'model' must not be repeated: which one counts?")
    worker.nothing_happened()


async def test_a_long_body_reaches_the_upstream_while_it_comes(worker: LocalWorker) -> None:
    pieces = [bytes([65 + number]) * 50_000 for number in range(4)]
    arrived: list[bytes] = []
    first = asyncio.Event()

    async def script(peer: Peer) -> None:
        assert b"content-length: 200000" in (await peer.head()).lower()
        size = 0
        while size < 200_000:
            data = await peer._reader.read(65536)
            arrived.append(data)
            size += len(data)
            if size >= 50_000:
                first.set()
        await peer.send(answer(b"taken"))
        await peer.gone()

    async with Upstream(script) as upstream:
        variant = http("a", "champion", f"http://{upstream.authority}")
        await worker.publish(plan(endpoint(variant, name="plain", protocol="http")))
        async with asking(worker, "POST", "/plain/up", (b"content-length", b"200000")) as client:
            client.send(pieces[0], more=True)
            async with asyncio.timeout(LONG):
                await first.wait()  # the upstream has the first piece before the client has sent the others
            for number, piece in enumerate(pieces[1:], start=2):
                client.send(piece, more=number < 4)
            await client.until(lambda: client.whole)
    assert (client.status, client.body) == (200, b"taken")
    assert b"".join(arrived) == b"".join(pieces)


async def reading_the_head(peer: Peer) -> None:
    await peer.head()
    await peer.gone()


async def test_a_client_that_leaves_in_its_upload_is_no_failure_of_the_variant(worker: LocalWorker) -> None:
    async with Upstream(reading_the_head) as upstream:
        variant = http("a", "champion", f"http://{upstream.authority}")
        await worker.publish(plan(endpoint(variant, name="plain", protocol="http")))
        async with asking(worker, "POST", "/plain/up", (b"content-length", b"200000")) as client:
            client.send(b"x" * 50_000, more=True)
            client.sending.put_nowait({"type": "http.disconnect"})
            assert client.task is not None
            await asyncio.wait([client.task], timeout=LONG)
    (completion,) = worker.facts(Completion)
    assert (completion.end, completion.error) == ("client_closed", "")
    assert worker.count("gateway_completions", "plain", "exp-1", "a", "error") == 0


@pytest.mark.parametrize("taken", [True, False])
async def test_an_upload_that_stalls_is_its_clients_unless_the_upstream_takes_none(
    worker: LocalWorker, taken: bool
) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        if taken:
            await peer.gone()
        await asyncio.sleep(LONG)

    async with Upstream(script) as upstream:
        url = f"http://{upstream.authority}"
        variants = http("a", "champion", url), http("b", "challenger", url, timeout=0.2, stream_timeout=0.5)
        await worker.publish(plan(endpoint(*variants, share=0.5, name="plain", protocol="http"), max_body=1 << 26))
        user = worker.user_of("b", "plain").encode()
        for _ in range(3):
            async with asking(worker, "POST", "/plain/up", (b"x-user-id", user)) as client:
                client.send(b"x" * (100_000 if taken else 1 << 25), more=True)
                client.send(b"x", more=True)
                await client.until(lambda: client.whole)
            assert client.status == (408 if taken else 504)
    assert {(fact.end, fact.error) for fact in worker.facts(Completion)} == {
        ("rejected", "") if taken else ("failed", "deadline")
    }
    assert worker.count("gateway_breaker_opened", "plain", "b") == int(not taken)


async def test_an_upload_beyond_the_limit_is_refused_and_the_upstream_left(worker: LocalWorker) -> None:
    async with Upstream(reading_the_head) as upstream:
        variant = http("a", "champion", f"http://{upstream.authority}")
        await worker.publish(plan(endpoint(variant, name="plain", protocol="http"), max_body=100_000))
        async with asking(worker, "POST", "/plain/up") as client:  # no declared length
            for _ in range(3):
                client.send(b"x" * 50_000, more=True)
            await client.until(lambda: client.whole)
    assert client.status == 413
    (completion,) = worker.facts(Completion)
    assert (completion.end, completion.error, completion.status) == ("rejected", "", 413)


ERROR = b'data: {"error": {"message": "overloaded", "code": 503}}\n\n'


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        ([FIRST, ERROR], "event"),
        ([ERROR], "event"),
        ([FIRST + ERROR + LAST], "event"),
        ([FIRST, b'data: {"error":null,"choices":[]}\n\n', LAST], ""),
        ([FIRST, b'data: {"choices":[{"delta":{"content":"\\ndata: {\\"error\\": 1}"}}]}\n\n', LAST], ""),
    ],
)
async def test_a_stream_that_says_that_it_failed_is_an_error_of_its_variant(
    worker: LocalWorker, pieces: list[bytes], error: str
) -> None:
    gate = asyncio.Event()
    gate.set()
    async with Upstream(streaming(gate, *map(chunk, pieces), END)) as good, Upstream(streaming(gate, END)) as other:
        await worker.publish(plan(chat(f"http://{other.authority}", f"http://{good.authority}", share=0.5)))
        user = worker.user_of("v1", "chat").encode()
        for _ in range(3):
            async with asking(worker, "POST", "/v1/chat/completions", (b"x-user-id", user)) as client:
                client.send(ASKED)
                await client.until(lambda: client.whole)
                assert (client.status, client.body) == (200, b"".join(pieces))
    assert {(fact.end, fact.status, fact.error) for fact in worker.facts(Completion)} == {("answered", 200, error)}
    assert worker.count("gateway_breaker_opened", "chat", "v1") == int(bool(error))
