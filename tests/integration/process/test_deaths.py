"""Every process of a node killed in turn: what goes on, what is lost, what comes back."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.integration.process.node import Load, Node, wait_for

pytestmark = pytest.mark.process


def test_a_killed_worker_loses_only_what_it_had_in_flight(fixed_node: Node) -> None:
    with Load(fixed_node, threads=4) as load:
        load.more(100)
        before = fixed_node.total("gateway_completions_total")
        victim = fixed_node.child("gateway.worker")[0]
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: victim not in fixed_node.child("gateway.worker"), "the worker is gone")
        assert fixed_node.total("gateway_completions_total") >= before
        load.more(100)
        wait_for(lambda: len(fixed_node.status()["workers"]) == 2 and fixed_node.converged(), "two workers again")
        load.more(50)
    failed = sum(load.failures().values())
    assert failed <= 4, load.failures()  # one request in flight for each client thread at most
    # A worker answers one request at a time: it may have died between the last byte and the completion of one.
    stored_exactly_once(fixed_node, load, uncompleted=1)
    assert load.answers[200] - 1 <= fixed_node.total("gateway_completions_total") <= load.done


def test_a_killed_control_process_changes_nothing_for_traffic(fixed_node: Node) -> None:
    with Load(fixed_node) as load:
        load.more(50)
        os.kill(fixed_node.child("gateway.control")[0], signal.SIGKILL)
        load.more(100)
        wait_for(lambda: _answers(fixed_node), "a new control process")
    assert load.failures() == {}
    stored_exactly_once(fixed_node, load)
    assert fixed_node.total("gateway_completions_total") == load.done


def test_a_control_process_killed_before_a_broken_config_comes_back_with_the_last_good_one(fixed_node: Node) -> None:
    fixed_node.config.write_text("version: 1\nendpoints: {")
    wait_for(lambda: not fixed_node.status()["config"]["ok"], "the refusal")
    os.kill(fixed_node.child("gateway.control")[0], signal.SIGKILL)
    wait_for(lambda: _answers(fixed_node), "a new control process")
    status = fixed_node.status()
    assert not status["config"]["ok"]
    assert status["endpoints"]["flight-delay"]["split"]["twin"] == pytest.approx(0.2)


def test_workers_and_control_leave_when_the_supervisor_is_killed(fixed_node: Node) -> None:
    children = fixed_node.child("gateway.worker") + fixed_node.child("gateway.control")
    assert len(children) == 3
    assert fixed_node.infer().status_code == 200  # a connection kept alive: its worker waits for a last request
    os.kill(fixed_node.process.pid, signal.SIGKILL)
    fixed_node.process.wait()
    # Until the last of them has left, nobody else may take the data directory.
    again = [sys.executable, "-m", "gateway.cli", "serve", "--config", str(fixed_node.config)]
    refused = subprocess.run(again, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert "still draining" in refused.stderr
    wait_for(lambda: not any(_alive(pid) for pid in children), "all children have left", 20.0)


def test_a_stopped_node_answers_to_the_end_and_keeps_every_fact(fixed_node: Node) -> None:
    with Load(fixed_node) as load:
        load.more(100)
        fixed_node.process.send_signal(signal.SIGTERM)
        assert fixed_node.process.wait(30) == 0
    # Once the port is closed new connections are refused; no connection that was open lost an answer.
    assert set(load.failures()) <= {"ConnectError"}, load.failures()
    stored_exactly_once(fixed_node, load)


def _answers(node: Node) -> bool:
    try:
        return len(node.status()["workers"]) == 2
    except httpx.HTTPError:
        return False


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def stored_exactly_once(node: Node, load: Load, uncompleted: int = 0) -> None:
    """Every answered request is in the store, once, with its completion but for so many at most."""
    path = node.config.parent / "data" / "gateway.db"

    def stored() -> tuple[int, int]:
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            requests = database.execute("SELECT count(*) FROM request").fetchone()[0]
            joined = database.execute("SELECT count(*) FROM exposure WHERE ended = 'answered'").fetchone()[0]
        finally:
            database.close()
        return requests, joined

    answered = load.answers[200]
    wait_for(lambda: stored()[0] >= answered and stored()[1] >= answered - uncompleted, "everything is shipped")
    requests, joined = stored()
    assert answered <= requests <= load.done
    assert joined <= requests
