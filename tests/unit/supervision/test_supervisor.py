"""What the supervisor does about children that end, cannot be started, or have grown, with a machine that fails."""

from __future__ import annotations

import itertools
import logging
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway import ends
from gateway.node import LEAVE_AT_ONCE
from gateway.supervision import recycling
from gateway.supervision.children import LONGEST_BACKOFF, STEADY
from gateway.supervision.closed_door import ANSWER, MOST, turn_away
from gateway.supervision.listeners import Address
from gateway.supervisor import REFUSED, NodeSettings, Supervisor
from gateway.telemetry.status_page import StatusPage, Word

_pids = itertools.count(1 << 22)  # beyond those that the kernel gives


@dataclass
class FakeProcess:
    """A child that does nothing until it is told how it ended."""

    settings: dict[str, Any]
    code: int | None = None
    signals: list[int] = field(default_factory=list)
    pid: int = field(default_factory=lambda: next(_pids))

    def poll(self) -> int | None:
        return self.code

    def wait(self, timeout: float | None = None) -> int:
        assert self.code is not None
        return self.code

    def send_signal(self, number: int) -> None:
        self.signals.append(number)

    def terminate(self) -> None:
        self.code = 0

    def kill(self) -> None:
        self.code = -9


@dataclass
class Machine:
    """A supervisor of one worker on a machine whose clock, memory and processes are made up."""

    supervisor: Supervisor
    now: float = 0.0
    started: list[FakeProcess] = field(default_factory=list)
    resident: dict[int, int] = field(default_factory=dict)

    def tend(self, later: float = LONGEST_BACKOFF) -> bool:
        self.now += later
        return self.supervisor._tend()

    @property
    def data(self) -> Path:
        return self.supervisor.settings.data_dir

    @property
    def workers(self) -> list[FakeProcess]:
        return [one for one in self.started if "spool" in one.settings]

    @property
    def controls(self) -> list[FakeProcess]:
        return [one for one in self.started if "config" in one.settings]

    def serve(self, worker: FakeProcess) -> None:
        """It has taken a plan."""
        spool = worker.settings["spool"]
        page = StatusPage(self.data / "status" / f"{spool:08d}-ab.page")
        page.words[Word.PLAN_REVISION] = 1
        page.close()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    port = Address("127.0.0.1", 0)
    settings = NodeSettings(
        config=tmp_path / "gateway.yaml",
        data_dir=tmp_path / "data",
        data=port,
        admin=port,
        metrics=port,
        workers=1,
        max_memory=1000,
    )
    made = Machine(Supervisor(settings))

    def start(command: list[str], **_: Any) -> FakeProcess:
        made.started.append(FakeProcess(msgspec.json.decode(command[-1])))
        return made.started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(time, "monotonic", lambda: made.now)
    monkeypatch.setattr(
        recycling, "_resident", lambda child: made.resident.get(child.process.pid, 0) if child.process else 0
    )
    made.supervisor.start()
    assert made.tend()
    yield made
    made.supervisor.shutdown()


def break_counter(data: Path) -> None:
    """As a full disk: its next value can be written nowhere."""
    (data / "spool.new").mkdir()


def test_who_ends_is_started_again_and_how_it_ended_is_told(machine: Machine) -> None:
    (first,) = machine.workers
    first.code = -11
    machine.tend()
    machine.tend()
    assert [one.settings["spool"] for one in machine.workers] == [1, 2]
    assert ends.told(machine.data / "status") == {1: "SIGSEGV"}
    assert len(machine.controls) == 1


def test_a_control_process_is_told_how_the_last_one_ended(machine: Machine) -> None:
    for code in (-11, -15):
        machine.controls[-1].code = code
        machine.tend()
        machine.tend()
    assert [one.settings["last_end"] for one in machine.controls] == ["", "SIGSEGV", "SIGTERM"]


@pytest.mark.parametrize("damaged", [False, True])
def test_a_worker_that_cannot_be_started_is_tried_again_and_nobody_else_suffers(
    machine: Machine, damaged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    counter = machine.data / "spool.next"
    machine.workers[0].code = -9
    if damaged:
        counter.write_text("")
    else:
        break_counter(machine.data)
    machine.tend(STEADY)
    for _ in range(40):
        machine.tend(0.05)
    complaints = [one for one in caplog.messages if "worker-0 cannot be started" in one]
    assert 1 <= len(complaints) <= 5, "it rests longer each time"
    assert len(machine.started) == 2
    if damaged:
        counter.write_text("7")
    else:
        (machine.data / "spool.new").rmdir()
    machine.tend()
    assert len(machine.workers) == 2


def test_an_end_that_cannot_be_written_is_told_later_and_complained_of_once_a_second(
    machine: Machine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError("No space left on device")

    tell = ends.tell
    monkeypatch.setattr(ends, "tell", full)
    caplog.set_level(logging.WARNING)
    machine.workers[0].code = -9
    for _ in range(39):
        machine.tend(0.05)
    assert sum("how worker 1 ended is not written" in one for one in caplog.messages) == 2
    monkeypatch.setattr(ends, "tell", tell)
    machine.tend()
    assert ends.told(machine.data / "status") == {1: "SIGKILL"}


def test_a_config_that_is_refused_ends_a_node_that_has_never_served(machine: Machine) -> None:
    machine.controls[0].code = -11
    assert machine.tend()
    assert machine.tend()
    machine.controls[1].code = REFUSED
    assert not machine.tend()


def test_a_config_that_is_refused_later_ends_nobody(machine: Machine) -> None:
    machine.controls[0].code = -11
    machine.tend()
    machine.tend()
    (machine.data / "plan.json").write_text("{}")
    machine.controls[1].code = REFUSED
    assert machine.tend()
    machine.tend()
    assert len(machine.controls) == 3


def test_the_only_worker_serves_on_until_another_does(machine: Machine) -> None:
    (old,) = machine.workers
    machine.resident[old.pid] = 1001
    machine.tend()
    assert len(machine.workers) == 2
    for _ in range(3):
        machine.tend()
    assert old.signals == []
    machine.serve(machine.workers[1])
    machine.tend()
    assert old.signals == [LEAVE_AT_ONCE]
    old.code = 0
    machine.tend()
    assert ends.told(machine.data / "status") == {1: ends.MEMORY}
    assert len(machine.workers) == 2


def test_who_has_grown_serves_on_for_another_that_cannot_be_started(machine: Machine) -> None:
    (old,) = machine.workers
    break_counter(machine.data)
    machine.resident[old.pid] = 1001
    machine.tend()
    machine.tend(1000.0)
    assert old.signals == []
    (machine.data / "spool.new").rmdir()
    machine.tend()
    machine.serve(machine.workers[1])
    machine.tend()
    assert old.signals == [LEAVE_AT_ONCE]


def test_who_does_not_hear_that_it_is_to_leave_is_killed(machine: Machine) -> None:
    (old,) = machine.workers
    machine.resident[old.pid] = 1001
    machine.tend()
    machine.serve(machine.workers[1])
    machine.tend()
    machine.tend(60.0)
    machine.tend()
    assert old.code == -9
    assert ends.told(machine.data / "status") == {1: "SIGKILL"}
    machine.resident[machine.workers[1].pid] = 1001
    machine.tend(60.0)
    assert len(machine.workers) == 3, "the next may leave"


def test_before_there_is_a_plan_clients_are_told_so_and_then_left_to_the_workers(machine: Machine) -> None:
    port = machine.supervisor._listeners["data"].address.port

    def asked() -> socket.socket:
        client = socket.create_connection(("127.0.0.1", port), timeout=5)
        client.sendall(b"GET /v2/health/ready HTTP/1.1\r\nhost: x\r\n\r\n")
        return client

    with asked() as client, asked() as other:
        machine.tend()
        for one in (client, other):
            answer = b"".join(iter(partial(one.recv, 65_536), b""))
            assert answer == ANSWER
            head, _, body = answer.partition(b"\r\n\r\n")
            assert f"content-length: {len(body)}".encode() in head
            assert msgspec.json.decode(body)["status"] == 503
    (machine.data / "plan.json").write_text("{}")
    with asked() as client:
        machine.tend()
        client.settimeout(0.05)
        with pytest.raises(TimeoutError):
            client.recv(1)


def test_a_client_that_has_gone_already_is_no_trouble(machine: Machine) -> None:
    port = machine.supervisor._listeners["data"].address.port
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert machine.tend()


def test_a_look_turns_away_so_many_and_no_more() -> None:
    with closing(socket.create_server(("127.0.0.1", 0), backlog=MOST + 10)) as listener, ExitStack() as clients:
        listener.setblocking(False)
        assert turn_away(listener) == 0
        for _ in range(MOST + 3):
            clients.enter_context(socket.create_connection(listener.getsockname()))
        assert [turn_away(listener), turn_away(listener), turn_away(listener)] == [MOST, 3, 0]
