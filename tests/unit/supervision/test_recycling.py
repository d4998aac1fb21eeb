"""Who leaves for their memory: the largest, one at a time, once a minute; and how long who keeps ending rests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from gateway import ends
from gateway.supervision.children import FIRST_BACKOFF, LONGEST_BACKOFF, STEADY, Child, terminate
from gateway.supervision.recycling import LOOK, PAUSE, Recycling

LEAVES = "import signal, sys; signal.signal(signal.SIGUSR1, lambda *_: sys.exit(0)); print(flush=True); signal.pause()"
HEARS_NOTHING = "import signal; signal.signal(signal.SIGUSR1, signal.SIG_IGN); print(flush=True); signal.pause()"
STAYS = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"


def child(program: str, spool: int = 0) -> Child:
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()  # its handlers are there
    process.stdout.close()
    return Child(f"worker-{spool}", process, spool)


@pytest.fixture
def workers() -> Iterator[list[Child]]:
    """The second holds 64 MiB more."""
    made = [child(LEAVES, 1), child(f"kept = b'x' * (64 << 20); {LEAVES}", 2)]
    processes = [one.process for one in made]
    yield made
    terminate(processes, 0.0, lambda: True)


def test_the_largest_beyond_the_limit_leaves_and_a_minute_passes_before_the_next(workers: list[Child]) -> None:
    recycling, limit = Recycling(), 1 << 20
    assert recycling.due(workers, 1 << 40, 0.0) is None
    assert recycling.due(workers, limit, LOOK / 2) is None, "it is not looked at all the time"
    grown = recycling.due(workers, limit, LOOK)
    assert grown is workers[1]
    process = grown.process
    recycling.replace(grown, LOOK)
    assert grown.process is None
    recycling.dismiss(lambda _: True, 30.0, LOOK)
    assert recycling.due(workers, limit, LOOK + PAUSE - 1) is None
    assert process is not None
    assert process.wait(10) == 0
    assert recycling.ended() == {2: ends.MEMORY}
    assert recycling.ended() == {}
    assert recycling.due(workers, limit, LOOK + PAUSE) is workers[0]


def test_who_crashes_on_the_way_out_has_died() -> None:
    worker, recycling = child(HEARS_NOTHING, 1), Recycling()
    process = worker.process
    assert process is not None
    recycling.replace(worker, 0.0)
    recycling.dismiss(lambda _: True, 30.0, 0.0)
    process.kill()
    process.wait(10)
    assert recycling.ended() == {1: "SIGKILL"}


def test_who_serves_on_until_another_does_and_then_does_not_leave_is_killed() -> None:
    worker, recycling = child(HEARS_NOTHING, 1), Recycling()
    process = worker.process
    assert process is not None
    recycling.replace(worker, 0.0)
    recycling.dismiss(lambda _: False, 30.0, 1000.0)
    recycling.dismiss(lambda _: True, 30.0, 1001.0)
    recycling.dismiss(lambda _: True, 30.0, 1030.0)
    assert process.poll() is None
    recycling.dismiss(lambda _: True, 30.0, 1031.0)
    assert process.wait(10) == -9


def test_who_keeps_ending_rests_longer_each_time_and_who_lived_does_not() -> None:
    one, rests = Child("worker"), []
    for _ in range(8):
        one.rest(0.0)
        rests.append(one.not_before)
    assert rests[:3] == [2 * FIRST_BACKOFF, 4 * FIRST_BACKOFF, 8 * FIRST_BACKOFF]
    assert rests[-1] == LONGEST_BACKOFF
    one.rest(STEADY)
    assert one.not_before == STEADY
    one.started = STEADY
    one.rest(STEADY)
    assert one.not_before == STEADY + 2 * FIRST_BACKOFF


def test_who_does_not_leave_in_time_is_killed() -> None:
    process = child(STAYS).process
    assert process is not None
    terminate([None, process], 0.1, lambda: False)
    assert process.returncode == -9


def test_in_a_hurry_nobody_is_waited_for() -> None:
    process = child(STAYS).process
    assert process is not None
    terminate([process], 60.0, lambda: True)
    assert process.returncode == -9


@pytest.mark.parametrize(("code", "word"), [(-11, "SIGSEGV"), (-9, "SIGKILL"), (1, "exit"), (-200, "SIG200")])
def test_an_end_is_said_in_a_word(code: int, word: str) -> None:
    assert ends.word(code) == word
