"""The outbox as a process of its own: killed, stopped, started again, beside a store that is being written."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.unit.export.logs import Logged, live_one_unit
from tests.unit.export.receiver import Receiver, Taken

pytestmark = pytest.mark.process

_DEADLINE = 60.0


def start(log: Logged, state: Path, to: str, *more: str, out: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    words = ("outbox", log.url, "--to", to, "--name", "lake", "--state", str(state), "--batch", "30", *more)
    return subprocess.Popen(
        [sys.executable, "-m", "gateway.cli", *words], stdout=out, stderr=subprocess.PIPE, env={**os.environ}
    )


def ended(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    _, said = process.communicate(timeout=_DEADLINE)
    return process.returncode, said.decode()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _DEADLINE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def pending(pid: int, number: int) -> bool:
    """Whether a signal has not reached the process yet."""
    lines = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    return bool(int(lines["ShdPnd"], 16) >> (number - 1) & 1)


def everything(log: Logged) -> int:
    return sum(log.rows(f"SELECT count(*) FROM {name}")[0][0] for name in ("assignment", "outcome", "ledger"))


def ids(taken: list[Taken]) -> list[str]:
    return [event["id"] for one in taken for event in one.events]


def test_killed_between_receipt_and_acknowledgement_again_and_again(log: Logged, tmp_path: Path) -> None:
    """Every third batch is received, and then the outbox is killed before it hears of it."""
    running: list[subprocess.Popen[bytes]] = []

    def kill(_: Taken) -> None:
        if len(receiver.taken) % 3 == 0:
            running[-1].kill()
            running[-1].wait(_DEADLINE)

    with Receiver(before=kill) as receiver:
        for _ in range(40):
            running.append(start(log, tmp_path / "state", receiver.url))
            code, said = ended(running[-1])
            if code == 0:
                break
            assert code == -signal.SIGKILL, said
    assert code == 0
    assert len(running) > 3
    found = ids(receiver.taken)
    assert len(set(found)) == everything(log)
    assert len(found) == everything(log) + sum(len(one.events) for one in receiver.taken[2::3])  # what came twice
    first: dict[str, object] = {}
    for event in receiver.events:
        assert first.setdefault(event["id"], event) == event


def test_follow_while_the_gateway_writes_and_sigterm_ends_it(log: Logged, tmp_path: Path) -> None:
    with Receiver() as receiver:
        process = start(log, tmp_path / "state", receiver.url, "--follow")
        until(lambda: len(ids(receiver.kept)) == everything(log))
        dice = random.Random(3)
        for unit in range(500, 504):
            live_one_unit(log.world, unit, dice)
            log.world.settle()
            until(lambda: len(ids(receiver.kept)) == everything(log))
        process.terminate()
        code, said = ended(process)
    assert code == 0, said
    assert f"{everything(log):,} events sent" in said
    found = ids(receiver.taken)
    assert len(found) == len(set(found))


def test_sigterm_in_the_midst_of_a_slow_answer_waits_for_it(sqlite_log: Logged, tmp_path: Path) -> None:
    """What was received is acknowledged and not sent again."""

    def slow(_: Taken) -> None:
        if len(receiver.taken) == 2:
            process.terminate()
            until(lambda: not pending(process.pid, signal.SIGTERM))

    with Receiver(before=slow) as receiver:
        process = start(sqlite_log, tmp_path / "state", receiver.url)
        code, said = ended(process)
        assert code == 0, said
        assert len(receiver.kept) == 2
        again = start(sqlite_log, tmp_path / "state", receiver.url)
        assert ended(again)[0] == 0
    found = ids(receiver.taken)
    assert len(found) == len(set(found)) == everything(sqlite_log)


def test_sigterm_while_nobody_listens(sqlite_log: Logged, tmp_path: Path) -> None:
    with Receiver() as receiver:
        gone = receiver.url
    process = start(sqlite_log, tmp_path / "state", gone, "--follow")
    assert process.stderr is not None
    assert b"Connection refused" in process.stderr.readline()
    process.terminate()
    code, said = ended(process)
    assert (code, said.splitlines()[-1]) == (0, "outbox: 0 events sent")
    assert not (tmp_path / "state").exists()


def test_a_refusal_is_exit_code_1_and_the_position_stays(sqlite_log: Logged, tmp_path: Path) -> None:
    with Receiver([200, 422]) as receiver:
        code, said = ended(start(sqlite_log, tmp_path / "state", receiver.url))
        assert code == 1
        assert "refused with 422" in said
        assert ended(start(sqlite_log, tmp_path / "state", receiver.url))[0] == 0
    assert len(ids(receiver.kept)) == everything(sqlite_log)
    assert len(set(ids(receiver.kept))) == everything(sqlite_log)


def test_killed_while_it_writes_files(sqlite_log: Logged, tmp_path: Path) -> None:
    """At any moment; what is in the files at the end is everything, each line whole."""
    folder, state = tmp_path / "lake", tmp_path / "state"
    for more in (1, 20_000, 1, 40_000):
        written = size(folder) + more
        process = start(sqlite_log, state, f"file:{folder}")
        until(lambda written=written, process=process: size(folder) >= written or process.poll() is not None)  # type: ignore[misc]
        process.kill()
        process.communicate(timeout=_DEADLINE)
    code, said = ended(start(sqlite_log, state, f"file:{folder}"))
    assert code == 0, said
    lines = [line for path in sorted(folder.glob("lake-*.ndjson")) for line in path.read_bytes().splitlines()]
    assert len({json.loads(line)["id"] for line in lines}) == everything(sqlite_log)
    assert [path for path in folder.iterdir() if path.name.startswith(".")] == []


def size(folder: Path) -> int:
    with suppress(FileNotFoundError):  # a file gets its name in this moment
        return sum(path.stat().st_size for path in folder.glob("*lake-*"))
    return 0


def test_lines_into_a_pipe(sqlite_log: Logged, tmp_path: Path) -> None:
    process = start(sqlite_log, tmp_path / "state", "-", out=subprocess.PIPE)
    out, _ = process.communicate(timeout=_DEADLINE)
    assert process.returncode == 0
    assert len({json.loads(line)["id"] for line in out.splitlines()}) == everything(sqlite_log)


def test_the_reader_of_the_pipe_leaves(sqlite_log: Logged, tmp_path: Path) -> None:
    process = start(sqlite_log, tmp_path / "state", "-", out=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    code, said = ended(process)
    assert code == 1
    assert "stdout: Broken pipe" in said
