"""The worker as a process: it starts when there is a plan, and leaves without hurting a client."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from gateway import plan as plans
from gateway.events import Assignment, Completion, Fact
from gateway.node import WorkerSettings
from gateway.spool.format import Position
from gateway.spool.reader import StreamId, read
from tests.integration.serving.local_worker import INFER, champion, endpoint, infer_body, onnx, plan
from tests.integration.serving.worker_process import PROMPT, started
from tests.unit.backends import tiny_onnx

pytestmark = pytest.mark.process


@dataclass
class Process:
    """A worker process as the supervisor starts it."""

    data_dir: Path
    popen: subprocess.Popen[bytes]
    port: int
    lifeline: int

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PROMPT)

    def assigned(self) -> bool:
        path = self.data_dir / "spool"
        if not (path / "00000001.requests.000000").exists():
            return False
        return any(isinstance(fact, Assignment) for fact in read(path, StreamId(1, "requests"), Position()).facts)

    def facts(self) -> list[Fact]:
        batch = read(self.data_dir / "spool", StreamId(1, "requests"), Position())
        assert batch.finished
        assert batch.torn == 0
        return batch.facts


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    with started(tmp_path, shutdown_delay=0.3, drain=0.5, stderr=subprocess.PIPE) as worker:
        yield Process(tmp_path, *worker)


def http_request(body: bytes = b"", path: str = INFER) -> bytes:
    method = "POST" if body else "GET"
    return b"%s %s HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (
        method.encode(),
        path.encode(),
        len(body),
        body,
    )


def answer_on(connection: socket.socket) -> tuple[int, dict[bytes, bytes], bytes]:
    stream = connection.makefile("rb")
    status = int(stream.readline().split()[1])
    headers = dict(line.strip().split(b": ", 1) for line in iter(stream.readline, b"\r\n"))
    return status, headers, stream.read(int(headers[b"content-length"]))


def test_it_answers_as_soon_as_there_is_a_plan_and_leaves_when_told(process: Process) -> None:
    with process.connect() as connection:  # accepted by the kernel, answered once there is a plan
        connection.sendall(http_request(infer_body()))
        plans.write(process.data_dir / "plan.json", plan(endpoint(champion())))
        assert answer_on(connection)[0] == 200
    process.popen.send_signal(signal.SIGTERM)
    assert process.popen.wait(PROMPT) == 0
    kinds = [type(fact) for fact in process.facts() if isinstance(fact, Assignment | Completion)]
    assert kinds == [Assignment, Completion]


def test_told_to_leave_before_there_is_a_plan_it_leaves(process: Process) -> None:
    while not list((process.data_dir / "spool").glob("*.outcomes.*")):
        assert process.popen.poll() is None
    os.sched_yield()
    while b"SIGTERM" not in caught(process.popen.pid):
        assert process.popen.poll() is None
    process.popen.send_signal(signal.SIGTERM)
    assert process.popen.wait(PROMPT) == 0


def caught(pid: int) -> bytes:
    """ "SIGTERM" if the process has a handler for it by now."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)
    return b"SIGTERM" if mask >> (signal.SIGTERM - 1) & 1 else b""


@pytest.mark.parametrize("with_plan", [True, False])
def test_an_orphan_leaves(process: Process, with_plan: bool) -> None:
    if with_plan:
        plans.write(process.data_dir / "plan.json", plan(endpoint(champion())))
        with process.connect() as connection:
            connection.sendall(http_request(path="/v2/health/live"))
            assert answer_on(connection)[0] == 200
    os.close(process.lifeline)
    process.lifeline = -1
    assert process.popen.wait(PROMPT) == 0


def test_a_drain_serves_who_is_there_and_ends_kept_connections_in_words(process: Process) -> None:
    plans.write(process.data_dir / "plan.json", plan(endpoint(champion())))
    with process.connect() as kept, process.connect() as late:
        kept.sendall(http_request(path="/v2/health/ready"))
        status, headers, _ = answer_on(kept)
        assert status == 200
        assert b"connection" not in headers
        process.popen.send_signal(signal.SIGTERM)
        late.sendall(http_request(infer_body()))
        assert answer_on(late)[0] == 200
        while status == 200:
            with process.connect() as probe:  # still accepting, but not ready any more
                probe.sendall(http_request(path="/v2/health/ready"))
                status, headers, _ = answer_on(probe)
        assert status == 503
        assert headers[b"connection"] == b"close"
        kept.sendall(http_request(infer_body()))
        status, headers, _ = answer_on(kept)
        assert (status, headers[b"connection"]) == (200, b"close")
        assert kept.recv(1) == b""
    assert process.popen.wait(PROMPT) == 0
    with pytest.raises(ConnectionRefusedError):
        process.connect()


def test_what_outlives_the_grace_is_cut_but_written_down(process: Process, tmp_path: Path) -> None:
    slow = onnx("slow", "champion", tiny_onnx.hanging(tmp_path / "slow.onnx"), timeout=60)
    plans.write(process.data_dir / "plan.json", plan(endpoint(slow)))
    with process.connect() as connection:
        connection.sendall(http_request(infer_body()))
        while not process.assigned():  # then the backend is being asked
            assert process.popen.poll() is None
        process.popen.send_signal(signal.SIGTERM)
        assert process.popen.wait(PROMPT) == 0
    ends = [fact.end for fact in process.facts() if isinstance(fact, Completion)]
    assert ends == ["client_closed"]


BROKEN = """
import atexit

from gateway import worker


async def broken(settings):
    raise RuntimeError("ours")


atexit.register(print, "the interpreter has ended")
worker._run = broken
worker.main()
"""


def test_a_fault_of_ours_is_an_exit_code_and_no_end_of_the_interpreter_under_a_model(tmp_path: Path) -> None:
    """With a thread in native code that would be an abort, and the model's."""
    settings = WorkerSettings(data_dir=str(tmp_path), spool=1, socket=0, lifeline=0, shutdown_delay=0, drain=0, grace=0)
    command = [sys.executable, "-c", BROKEN, msgspec.json.encode(settings).decode()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "RuntimeError: ours" in done.stderr
    assert "has ended" not in done.stdout
