"""Case C27: more clients, or more requests, than a worker takes."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from gateway import plan as plans
from gateway.serving.app import SPARE
from gateway.serving.http1.head import Limits
from tests.faults.gateway import Gateway, Heard, get, open_gateway, plain, post, recording, request, settled
from tests.integration.backends.upstream import Peer, Upstream, answer
from tests.integration.serving.local_worker import champion, endpoint, plan
from tests.integration.serving.worker_process import PROMPT, started

pytestmark = pytest.mark.anyio
HEALTH = get("/v2/health/live")
DESCRIPTORS = 64
BUSY = Limits(spared=60.0)  # however slow the machine, whoever was answered was so just now
IDLE = Limits(spared=0.0)


class Gate:
    """An upstream whose answers wait until it is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.asked = 0

    async def __call__(self, peer: Peer) -> None:
        while True:
            await peer.request()
            self.asked += 1
            await self.open.wait()
            await peer.send(answer())


def overloaded(heard: Heard) -> bool:
    """Refused for want of room, in words that clients understand."""
    return (
        heard.status == 503
        and heard.headers["retry-after"] == "1"
        and heard.proxy_error == "connection_limit_reached"
        and "overloaded" in heard.body.decode()
    )


async def test_c27_one_request_too_many_is_refused_before_it_is_assigned(gateway: Gateway) -> None:
    gate = Gate()
    async with Upstream(gate) as upstream:
        url = f"http://{upstream.authority}"
        await gateway.publish(plain(url, url, share=0.5), max_requests=4)
        users = [gateway.user_of("a"), gateway.user_of("b")] * 2
        served = [await gateway.connect() for _ in users]
        for client, user in zip(served, users, strict=True):
            await client.send(get("/plain/x", f"x-user-id: {user.decode()}"))
        await settled(lambda: gate.asked == 4)
        for number, user in enumerate(users[:2], start=1):  # whoever would have answered
            for data in (get("/plain/x", f"x-user-id: {user.decode()}"), post(b"{}", "/v1/outcomes")):
                assert overloaded(await gateway.ask(data))
            assert gateway.rejected("overloaded") == 2 * number
        assert (await gateway.ask(HEALTH)).status == 200
        gate.open.set()
        assert [(await client.answer()).status for client in served] == [200] * 4
        assert (await gateway.ask(get())).status == 200
        kept = await gateway.exposures(5)
        assert [one.assigned.variant for one in kept][:4] == ["a", "b", "a", "b"]
        assert gateway.counted("a")[1] == gateway.counted("b")[1] == 0


@pytest.mark.parametrize("path", ["/v2/models/plain/infer", "/v1/chat/completions"])
async def test_c27_it_is_refused_in_the_form_of_its_protocol(gateway: Gateway, path: str) -> None:
    gate = Gate()
    async with Upstream(gate) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"), max_requests=1)
        client = await gateway.connect()
        await client.send(get())
        await settled(lambda: gate.asked == 1)
        heard = await gateway.ask(post(b"{}", path))
        assert (heard.status, heard.headers["retry-after"]) == (503, "1")
        assert heard.headers["content-type"] == "application/json"


async def test_c27_one_connection_too_many_is_refused_but_told_of_health(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, BUSY) as gateway, Upstream(recording) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"), max_connections=2)
        held = [await gateway.connect() for _ in range(2)]
        for client in held:
            await client.send(get())
            assert (await client.answer()).status == 200
        for data in (get(), request("POST", "/plain/x", "content-length: 5") + b"hello"):
            client = await gateway.connect()
            await client.send(data)
            heard = await client.answer()
            assert overloaded(heard)
            assert heard.headers["connection"] == "close"
            assert await client.closed()
        client = await gateway.connect()
        await client.send(HEALTH)
        heard = await client.answer()
        assert (heard.status, heard.headers["connection"]) == (200, "close")
        assert await client.closed()
        assert gateway.rejected("overloaded") == 2
        for client in held:  # whoever was there is served on
            await client.send(get())
            assert (await client.answer()).status == 200
        held[0].close()
        await settled(lambda: gateway.connections == 1)
        assert (await gateway.ask(get())).status == 200
        assert len(await gateway.exposures(5)) == len(upstream.requests) == 5


async def test_c27_whoever_has_been_idle_longest_gives_way_to_a_new_connection(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, IDLE) as gateway, Upstream(recording) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"), max_connections=4)
        silent, head, *idle = [await gateway.connect() for _ in range(4)]
        for client in (head, *idle, idle[0]):  # the second was used last
            await client.send(get())
            assert (await client.answer()).status == 200
        await head.send(get()[:10])
        await settled(lambda: gateway.connections == 4)
        new = []
        for closed in (idle[1], idle[0]):
            new.append(await gateway.connect())
            assert await closed.closed()
        late = await gateway.connect()
        await late.send(get())
        assert overloaded(await late.answer())  # nobody else is idle: not who says nothing, nor who has begun to
        await head.send(get()[10:])
        for client in (*new, silent):
            await client.send(get())
        for client in (head, *new, silent):
            assert (await client.answer()).status == 200
        assert gateway.rejected("overloaded") == 1


async def test_c27_a_burst_of_new_connections_finds_the_places_of_idle_ones(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, IDLE) as gateway, Upstream(recording) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"), max_connections=100)
        idle = [await gateway.connect() for _ in range(100)]
        for client in idle:
            await client.send(get())
            assert (await client.answer()).status == 200
        new = await asyncio.gather(*[gateway.connect() for _ in range(SPARE)])
        for client in new:
            await client.send(get())
            assert (await client.answer()).status == 200
        await settled(lambda: gateway.connections == 100)
        assert gateway.rejected("overloaded") == 0


async def test_c27_whoever_was_just_answered_does_not_give_way(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, BUSY) as gateway, Upstream(recording) as upstream:
        await gateway.publish(plain(f"http://{upstream.authority}"), max_connections=1)
        first = await gateway.connect()
        await first.send(get())
        assert (await first.answer()).status == 200
        assert overloaded(await gateway.ask(get()))
        await first.send(get())
        assert (await first.answer()).status == 200


async def test_c27_a_crowd_is_refused_without_being_heard(tmp_path: Path) -> None:
    async with open_gateway(tmp_path, Limits(crowded_timeout=0.2)) as gateway:
        await gateway.publish(plain("http://127.0.0.1:1"), max_connections=100)
        crowd = [await gateway.connect() for _ in range(100 + SPARE)]
        await settled(lambda: gateway.connections == 100 + SPARE)
        client = await gateway.connect()
        assert overloaded(await client.answer())  # at once
        assert await client.closed()
        for silent in crowd[100:]:  # they had a moment to say that they ask for health
            assert await silent.closed()
        await settled(lambda: gateway.connections == 100)
        assert gateway.rejected("overloaded") == 1
        gateway.nothing_kept()


async def test_c27_a_burst_is_counted_one_by_one(gateway: Gateway) -> None:
    await gateway.publish(plain("http://127.0.0.1:1"), max_connections=100)
    clients = await asyncio.gather(*[gateway.connect() for _ in range(400)])
    await settled(lambda: gateway.rejected("overloaded") >= 300 - SPARE)
    assert gateway.connections <= 100 + SPARE
    first, last = clients[0], clients[-1]
    await first.send(HEALTH)
    assert (await first.answer()).status == 200
    assert overloaded(await last.answer())


@dataclass
class Process:
    """A worker process with few descriptors."""

    data_dir: Path
    popen: subprocess.Popen[bytes]
    port: int

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PROMPT)

    def ask(self, data: bytes) -> int:
        with self.connect() as client:
            return asked(client, data)

    def cpu(self) -> float:
        fields = Path(f"/proc/{self.popen.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def limit(self) -> tuple[int, int]:
        return resource.prlimit(self.popen.pid, resource.RLIMIT_NOFILE)


def asked(client: socket.socket, data: bytes) -> int:
    """The status of the answer; 0 where the connection ends without one."""
    try:
        client.sendall(data)
        head = b""
        while b"\r\n\r\n" not in head:
            if not (piece := client.recv(4096)):
                return 0
            head += piece
        return int(head.split()[1])
    except ConnectionError:
        return 0


@pytest.fixture
def process(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Process]:
    plans.write(tmp_path / "plan.json", plan(endpoint(champion())))
    limited = partial(resource.setrlimit, resource.RLIMIT_NOFILE, request.param)
    with started(tmp_path, backlog=1024, preexec_fn=limited) as worker:
        yield Process(tmp_path, worker.popen, worker.port)


@pytest.mark.process
@pytest.mark.parametrize("process", [(DESCRIPTORS, DESCRIPTORS)], indirect=True)
def test_c27_a_worker_without_descriptors_serves_whom_it_has(process: Process) -> None:
    infer = get("/v2/models/flight")
    first = process.connect()
    crowd = [process.connect() for _ in range(3 * DESCRIPTORS)]
    assert asked(first, infer) == 200
    heard = [asked(client, infer) for client in crowd]
    assert 200 in heard
    assert set(heard) <= {200, 503, 0}
    assert heard.count(503) > DESCRIPTORS  # told so, not just hung up on
    assert asked(first, infer) == 200
    before = process.cpu()
    waited = [asked(client, infer) for client, status in zip(crowd, heard, strict=True) if status == 200]
    assert set(waited) == {200}
    assert process.cpu() - before < 1.0  # no loop of failing accepts
    assert process.ask(get("/v2/health/live")) == 200
    for client in crowd:
        client.close()
    while process.ask(infer) != 200:  # until it has seen that they left
        assert process.popen.poll() is None
    assert process.popen.poll() is None
    process.popen.send_signal(signal.SIGTERM)
    first.close()
    assert process.popen.wait(PROMPT) == 0


@pytest.mark.process
@pytest.mark.parametrize("process", [(DESCRIPTORS, 4096)], indirect=True)
def test_c27_a_worker_takes_as_many_descriptors_as_it_may(process: Process) -> None:
    crowd = [process.connect() for _ in range(2 * DESCRIPTORS)]
    assert {asked(client, get("/v2/models/flight")) for client in crowd} == {200}
    assert process.limit() == (4096, 4096)
    for client in crowd:
        client.close()
