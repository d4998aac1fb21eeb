"""Signals, kills, restarts and edits in the life of a node: who loses a request, who is moved. Real processes."""

from __future__ import annotations

import os
import random
import signal
import socket
import sqlite3
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest

from benchmarks import bench_reload
from benchmarks.processes import free_port
from tests.faults.users import BY_USER, Users
from tests.integration.process.conftest import HEAD
from tests.integration.process.node import Load, Node, running, wait_for
from tests.integration.process.test_deaths import stored_exactly_once

pytestmark = pytest.mark.process
SLOW = """\
  slow:
    protocol: http
    variants: {{a: {{role: champion, url: "http://127.0.0.1:{port}", timeout: 60s}}}}
    traffic: {{a: 100%}}
"""


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_l2_a_second_signal_ends_at_once_what_a_drain_would_wait_for(tmp_path: Path, second: signal.Signals) -> None:
    """The exit code tells it, and what was written is shipped all the same."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = tmp_path / "gateway.yaml"
        config.write_text(HEAD + SLOW.format(port=silent.getsockname()[1]))
        with running(config, workers=2) as node:
            asking = threading.Thread(target=_ask_in_vain, args=(node.url("data", "/slow/x"),))
            asking.start()
            wait_for(lambda: node.metrics()["gateway_in_flight_requests"] == 1, "the request waits")
            node.process.send_signal(signal.SIGTERM)
            wait_for(lambda: "shutting down" in node.log, "the drain has begun")
            began = time.monotonic()
            node.process.send_signal(second)
            assert node.process.wait(20) == 128 + second
            assert time.monotonic() - began < 10, "the grace would be 25 s"
            asking.join(10)
    assert "killing the workers" in node.log
    with closing(sqlite3.connect(tmp_path / "data" / "gateway.db")) as database:
        assert database.execute("SELECT count(*) FROM request").fetchone() == (1,)


def _ask_in_vain(url: str) -> None:
    with pytest.raises(httpx.HTTPError):
        httpx.get(url, timeout=60, trust_env=False)


def test_l3_workers_that_are_restarted_one_by_one_lose_no_request_and_move_no_user(node: Node) -> None:
    users = Users(node)
    with users.load as load:
        load.more(200)
        for old in node.child("gateway.worker"):
            os.kill(old, signal.SIGTERM)
            wait_for(lambda: old not in node.child("gateway.worker"), "it has left", 30)  # noqa: B023 - at once
            wait_for(lambda: len(node.status()["workers"]) == 2 and node.converged(), "another is there", 30)
        load.more(200)
    assert load.failures() == {}
    users.check_nobody_moved()
    assert node.total("gateway_worker_deaths_total") == 0, "a worker that leaves as it is told has not died"


def test_l1_l3_nodes_that_are_restarted_in_turn_behind_a_balancer_lose_no_request_and_move_no_user(
    tmp_path: Path,
) -> None:
    """As a balancer does: whoever refuses a connection is passed over. Nodes share nothing but what the config says."""
    with ExitStack() as stack:
        configs = [_on_a_port_of_its_own(tmp_path / name) for name in ("one", "two", "three")]
        nodes = [stack.enter_context(running(config, workers=1)) for config in configs]
        users = Users(*nodes)
        with users.load as load:
            load.more(200)
            for node in nodes:
                node.process.send_signal(signal.SIGTERM)
                assert node.process.wait(30) == 0
                load.more(50)
                stack.enter_context(running(node.config, workers=1))
                load.more(50)
        assert load.failures() == {}
        users.check_nobody_moved()


def _on_a_port_of_its_own(folder: Path) -> Path:
    folder.mkdir()
    config = folder / "gateway.yaml"
    text = (HEAD + BY_USER).replace("workers: 2", "workers: 1")
    config.write_text(text.replace("127.0.0.1:0", f"127.0.0.1:{free_port()}", 1))
    return config


def test_l4_workers_killed_for_want_of_memory_are_counted_and_no_model_is_blamed(node: Node) -> None:
    """SIGKILL stands in for the kernel's choice: it names nobody."""
    users = Users(node)
    with users.load as load:
        load.more(100)
        for victim in node.child("gateway.worker"):
            os.kill(victim, signal.SIGKILL)
            wait_for(lambda: len(node.status()["workers"]) == 2 and node.converged(), "two workers again", 30)
        load.more(50)
    killed = 'gateway_worker_deaths_total{signal="SIGKILL"}'
    wait_for(lambda: node.metrics().get(killed) == 2, "both deaths are counted")
    assert node.total("gateway_model_crashes_total") == 0
    assert node.status()["endpoints"]["flight-delay"]["split"] == pytest.approx({"logistic": 0.5, "boosted": 0.5})
    assert sum(load.failures().values()) <= 2 * 4, "no more than each client had in flight"
    users.check_nobody_moved()


def test_f6_edits_and_promotions_fail_no_request_and_move_nobody_whom_they_do_not_concern(tmp_path: Path) -> None:
    """The short form of `make prove ARGS="--only reload"`."""
    result = bench_reload.measure(tmp_path, changes=6, rate=100)
    assert result["failures"] == []
    assert (result["by_another_variant"], result["moved_by_unrelated_edits"], result["promotions"]) == (0, 0, 3)
    assert result["certain"] > 100


@pytest.mark.parametrize("seed", range(2))
def test_l4_whoever_is_killed_at_whatever_moment_every_answer_is_stored_once(node: Node, seed: int) -> None:
    chance = random.Random(seed)
    with Load(node) as load:
        for _ in range(5):
            load.more(chance.randrange(1, 60))
            victims = node.child("gateway.worker") + node.child("gateway.control")
            os.kill(chance.choice(victims), signal.SIGKILL)
        wait_for(lambda: _all_there(node), "everybody is back", 40)
        load.more(50)
    assert sum(load.failures().values()) <= 5 * 4, load.failures()
    # A worker may have died between the last byte of an answer and its completion.
    stored_exactly_once(node, load, uncompleted=5)


def _all_there(node: Node) -> bool:
    try:
        return len(node.status()["workers"]) == 2 and node.converged()
    except httpx.HTTPError:
        return False
