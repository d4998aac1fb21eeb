"""Look-ups of names: beside the traffic, and old answers before none."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import Counter

import pytest

from gateway.backends import resolver
from gateway.backends.base import Timeouts
from gateway.backends.faults import AddressProhibited, ConnectFailed, NameNotFound, of_connect
from gateway.backends.http import HttpBackend
from gateway.backends.resolver import FRESH, STALE, Resolver
from tests.integration.backends.upstream import GET, Upstream, answer, echoing, soon, until

pytestmark = pytest.mark.anyio
AWAY = socket.gaierror(socket.EAI_AGAIN, "temporary failure")


class Names:
    """A resolver of names that says what it is told to, when it is told to."""

    def __init__(self, *answers: list[str] | Exception) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked += 1
        await self.gate.wait()
        said = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(said, Exception):
            raise said
        return said


class Later:
    """The loop's time, moved on by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._loop = asyncio.get_running_loop()
        self._by = 0.0
        monkeypatch.setattr(resolver, "now", lambda: self._loop.time() + self._by)

    def by(self, seconds: float) -> None:
        self._by += seconds


async def test_an_address_is_not_looked_up() -> None:
    names = Names(AWAY)
    for address in ("127.0.0.1", "::1"):
        assert await Resolver(address, 80, names).addresses() == [address]
    assert names.asked == 0


async def test_callers_at_once_share_a_look_up() -> None:
    names = Names(["10.0.0.1", "10.0.0.2"])
    one = Resolver("a", 80, names)
    orders = await asyncio.gather(*[one.addresses() for _ in range(50)])
    assert Counter(map(tuple, orders)) == {("10.0.0.1", "10.0.0.2"): 25, ("10.0.0.2", "10.0.0.1"): 25}
    assert names.asked == 1


async def test_nobody_waits_for_a_newer_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    names, later = Names(["10.0.0.1"], ["10.0.0.2"]), Later(monkeypatch)
    one = Resolver("a", 80, names)
    await one.addresses()
    names.gate.clear()
    later.by(FRESH)
    for _ in range(3):
        assert await one.addresses() == ["10.0.0.1"]
    await until(lambda: names.asked == 2)
    names.gate.set()
    await until(lambda: not one.still("10.0.0.1"))
    assert await one.addresses() == ["10.0.0.2"]


async def test_old_answers_serve_while_look_ups_fail_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    names, later = Names(["10.0.0.1"], AWAY), Later(monkeypatch)
    one = Resolver("a", 80, names)
    await one.addresses()
    later.by(STALE - 1)
    assert await one.addresses() == ["10.0.0.1"]
    await until(lambda: names.asked == 2)
    later.by(FRESH)
    with pytest.raises(socket.gaierror):
        await one.addresses()
    names.answers = [["10.0.0.9"]]
    later.by(FRESH)
    assert await one.addresses() == ["10.0.0.9"]


async def test_a_name_that_leads_to_the_machines_own_metadata_is_refused() -> None:
    for bad in ("169.254.169.254", "fe80::1%eth0", "::ffff:169.254.169.254", "100.100.100.200", "fd00:ec2::254"):
        with pytest.raises(AddressProhibited):
            await Resolver("evil", 80, Names(["10.0.0.1", bad])).addresses()


async def test_connections_follow_the_name() -> None:
    """One that was used meanwhile is not kept once its name leads elsewhere."""
    async with Upstream(echoing(answer(b"old"))) as old:
        backend = HttpBackend(f"http://name:{old.port}")
        names = Names(["127.0.0.1"])
        backend.pool._resolver = one = Resolver("name", old.port, names)
        assert (await backend.call(GET, soon())).body == b"old"
        assert backend.pool.idle == 1
        one._known = ["127.0.0.2"]  # nobody listens there
        assert (await backend.call(GET, soon())).body == b"old"
        assert backend.pool.idle == 0
        with pytest.raises(ConnectFailed):
            await backend.call(GET, soon())
        await backend.close()


async def test_every_address_is_tried() -> None:
    async with Upstream(echoing(answer(b"here"))) as upstream:
        backend = HttpBackend(f"http://name:{upstream.port}")
        backend.pool._resolver = Resolver("name", upstream.port, Names(["127.0.0.3", "127.0.0.4", "127.0.0.1"]))
        for _ in range(3):
            assert (await backend.call(GET, soon())).body == b"here"
            backend.pool._idle.pop().abort()
        await backend.close()


async def test_a_name_that_nobody_knows() -> None:
    backend = HttpBackend("http://name.invalid:80")
    with pytest.raises(NameNotFound) as caught:
        await backend.call(GET, soon())
    assert "name.invalid" not in str(caught.value)
    assert "name.invalid" in caught.value.about
    assert backend.pool.busy == 0


async def test_a_busy_upstream_hears_of_a_changed_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it opens no connection that would ask."""
    later = Later(monkeypatch)
    async with Upstream(echoing(answer(b"old"))) as upstream:
        backend = HttpBackend(f"http://name:{upstream.port}")
        names = Names(["127.0.0.1"], ["127.0.0.9"])
        backend.pool._resolver = Resolver("name", upstream.port, names)
        await backend.call(GET, soon())
        later.by(FRESH)
        await backend.call(GET, soon())
        await until(lambda: not backend.pool._resolver.still("127.0.0.1"))
        assert names.asked == 2
        await backend.close()


async def test_a_silent_address_leaves_time_for_the_others() -> None:
    with socket.socket() as full, socket.socket() as filler:
        full.bind(("127.0.0.7", 0))
        full.listen(0)
        filler.connect(full.getsockname())
        port = full.getsockname()[1]
        server = await asyncio.start_server(echo, "127.0.0.1", port)
        backend = HttpBackend(f"http://name:{port}", timeouts=Timeouts(connect=0.4))
        backend.pool._resolver = one = Resolver("name", port, Names(["127.0.0.7", "127.0.0.1"]))
        for _ in range(4):
            assert (await backend.call(GET, soon())).body == b"ok"
            backend.pool._idle.pop().abort()
        assert (await one.addresses())[0] == "127.0.0.1"  # the other has failed of late
        await backend.close()
        server.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(answer(b"ok"))
    writer.close()


async def test_a_failure_is_raised_anew_for_everybody() -> None:
    one = Resolver("a", 80, Names(AWAY))
    with pytest.raises(socket.gaierror) as first:
        await one.addresses()
    with pytest.raises(socket.gaierror) as second:
        await one.addresses()
    assert first.value is not second.value
    assert first.value.args == second.value.args == AWAY.args
    assert AWAY.__traceback__ is None


async def test_an_address_that_this_machine_has_not_is_the_upstreams_fault() -> None:
    assert isinstance(of_connect(OSError(errno.EADDRNOTAVAIL, "cannot assign"), "a:80"), ConnectFailed)
