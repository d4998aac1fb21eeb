"""Faults of a node's life: signals, kills, restarts, places to listen on, places to write to. Real processes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks import bench_reload
from benchmarks.processes import free_port
from gateway.telemetry.status_page import Word
from tests.faults.fifty import estimate_all, fifty_experiments
from tests.integration.process.conftest import FIXED, HEAD
from tests.integration.process.node import MODELS, Load, Node, infer_body, running, wait_for
from tests.integration.process.test_deaths import stored_exactly_once

pytestmark = pytest.mark.process
ROOT = Path(__file__).parents[2]
BY_USER = f"""\
  flight-delay:
    protocol: oip
    unit: {{from: "header:x-user-id", otherwise: request}}
    variants:
      logistic: {{role: champion, onnx: {MODELS}/logistic.onnx}}
      boosted: {{role: challenger, onnx: {MODELS}/boosted.onnx}}
    traffic: {{logistic: 50%, boosted: 50%}}
"""
SLOW = """\
  slow:
    protocol: http
    variants: {{a: {{role: champion, url: "http://127.0.0.1:{port}", timeout: 60s}}}}
    traffic: {{a: 100%}}
"""


READ_ONLY = "mount -o remount,ro,bind /"
# Of the rights of root it keeps that to read, because a Python may lie in root's home.
_READS = "-all,+dac_read_search"
AS_NOBODY = (
    "setpriv --reuid 12345 --regid 12345 --clear-groups"
    f" --inh-caps={_READS} --ambient-caps={_READS} --bounding-set={_READS}"
)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    config = tmp_path / "gateway.yaml"
    config.write_text(HEAD + BY_USER)
    with running(config, workers=2) as made:
        yield made


class Users:
    """A load of 50 users who return, and the answers that each of them has got: the two models never agree."""

    def __init__(self, *nodes: Node) -> None:
        self._urls = [node.url("data", "/v2/models/flight-delay/infer") for node in nodes]
        self.answers: dict[str, set[float]] = defaultdict(set)
        self.load = Load(nodes[0], send=self._ask)

    def _ask(self, client: httpx.Client, name: str) -> httpx.Response:
        user = str(int(name.removeprefix("load-")) % 50)
        answer = self._first(client, {"x-user-id": user, "x-request-id": name})
        if answer.status_code == 200:
            self.answers[user].add(answer.json()["outputs"][0]["data"][0])
        return answer

    def _first(self, client: httpx.Client, headers: dict[str, str]) -> httpx.Response:
        """Of the first node that takes a connection."""
        for url in self._urls[:-1]:
            with suppress(httpx.ConnectError):
                return client.post(url, json=infer_body(), headers=headers)
        return client.post(self._urls[-1], json=infer_body(), headers=headers)

    def check_nobody_moved(self) -> None:
        assert len(self.answers) == 50
        assert all(len(answers) == 1 for answers in self.answers.values())
        assert len(set.union(*self.answers.values())) == 2


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
    stored_exactly_once(node, load)


def _all_there(node: Node) -> bool:
    try:
        return len(node.status()["workers"]) == 2 and node.converged()
    except httpx.HTTPError:
        return False


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter; those of pytest are its user's."""
    with tempfile.TemporaryDirectory(prefix="gateway-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_l6_a_node_writes_to_its_data_directory_and_nowhere_else(open_folder: Path) -> None:
    """Everything else is read-only, it has a number for a user, no home, and none of root's rights to write."""
    if not _may_mount():
        pytest.skip("needs root, to mount the system read-only, and a Python that others may run")
    data = open_folder / "data"
    data.mkdir()
    shutil.chown(data, 12345, 12345)
    config = open_folder / "gateway.yaml"
    config.write_text(HEAD + FIXED)
    script = f'mount --bind {data} {data} && {READ_ONLY} && cd / && exec {AS_NOBODY} "$@"'
    apart = ("unshare", "--mount", "sh", "-c", script, "sh")
    nowhere = {"HOME": "/nonexistent", "TMPDIR": "/nonexistent", "PYTHONPATH": str(ROOT)}
    with running(config, workers=2, prefix=apart, environment=nowhere) as node:
        assert os.stat(f"/proc/{node.process.pid}").st_uid == 12345
        for _ in range(20):
            assert node.infer().status_code == 200
        node.edit("logistic: 80%, twin: 20%", "logistic: 50%, twin: 50%")
        wait_for(lambda: node.status()["endpoints"]["flight-delay"]["split"]["twin"] == 0.5, "an edit is taken")
        assert node.metrics()["gateway_store_up"] == 1
        assert node.stop() == 0
        assert "Traceback" not in node.log
        lines = [json.loads(line) for line in node.log.splitlines()]  # no library says anything else
        assert not [line for line in lines if line["level"] in ("warning", "error")]


def _may_mount() -> bool:
    probe = ["unshare", "--mount", "sh", "-c", f"{READ_ONLY} && {AS_NOBODY} {sys.executable} -c 'import gateway'"]
    try:
        return subprocess.run(probe, capture_output=True, timeout=30, check=False).returncode == 0
    except OSError:
        return False


def test_l8_what_has_been_served_leaves_neither_descriptors_nor_threads(node: Node) -> None:
    with Load(node) as load:
        load.more(300)
    before = {pid: _held(pid) for pid in _processes(node)}
    for _ in range(3):
        with Load(node) as load:
            load.more(300)
    wait_for(lambda: all(_held(pid) <= held for pid, held in before.items()), "all is given back")


def _processes(node: Node) -> list[int]:
    return node.child("gateway.worker") + node.child("gateway.control")


def _held(pid: int) -> tuple[int, int]:
    """Sockets excepted, which a client keeps alive."""
    links = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]
    return sum(not link.startswith("socket:") for link in links), len(os.listdir(f"/proc/{pid}/task"))


def test_l9_a_port_in_use_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        config.write_text((HEAD + FIXED).replace("127.0.0.1:0", address, 1))
        done = _serve(config)
    assert done.returncode == 1
    assert done.stderr == f"gateway: cannot listen on {address}: Address already in use\n"


def _serve(config: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway.cli", "serve", "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_l10_all_ports_listen_on_ipv6(tmp_path: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("the system has no IPv6")
    config = tmp_path / "gateway.yaml"
    config.write_text((HEAD + FIXED).replace("127.0.0.1:0", "[::1]:0"))
    with running(config, workers=2) as node:
        assert all(node.addresses[port].startswith("[::1]:") for port in ("data", "admin", "metrics"))
        assert node.infer().status_code == 200
        assert node.total("gateway_completions_total") == 1
        assert _gateway("status", "--config", str(config)).returncode == 0


def _gateway(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_l10_all_ports_listen_on_socket_files(tmp_path: Path) -> None:
    """Which are for the owner and the group, and go with the node; what a killed one left is in nobody's way."""
    paths = {name: tmp_path / f"{name}.sock" for name in ("data", "admin", "metrics")}
    text = HEAD + FIXED
    for name, path in paths.items():
        text = text.replace(f'{name}: {{listen: "127.0.0.1:0"', f'{name}: {{listen: "unix:{path}"')
    config = tmp_path / "gateway.yaml"
    config.write_text(text)
    for path in paths.values():
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
    with _on_files(config, paths) as (process, ask):
        assert {path.stat().st_mode & 0o777 for path in paths.values()} == {0o660}
        answer = ask("data", "POST", "/v2/models/flight-delay/infer", json=infer_body())
        assert answer.status_code == 200
        assert "gateway_completions_total" in ask("metrics", "GET", "/metrics").text
        assert "logistic 80 %" in _gateway("status", "--config", str(config)).stdout
        other = tmp_path / "other.yaml"
        other.write_text(text.replace("data_dir: data", "data_dir: other"))
        refused = _serve(other)
        assert refused.returncode == 1
        assert refused.stderr == f"gateway: cannot listen on unix:{paths['data']}: Address already in use\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert not any(path.exists() for path in paths.values())
    paths["data"].write_text("mine")
    assert "there is a file that is no socket" in _serve(config).stderr
    assert paths["data"].read_text() == "mine"


@contextmanager
def _on_files(config: Path, paths: dict[str, Path]) -> Iterator[tuple[subprocess.Popen[bytes], Callable[..., Any]]]:
    """A node that listens on socket files, and a way to ask it."""
    command = [sys.executable, "-m", "gateway.cli", "serve", "--config", str(config), "--shutdown-delay", "0.2"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def ask(name: str, method: str, path: str, **how: Any) -> httpx.Response:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(paths[name])), timeout=10) as client:
            return client.request(method, f"http://gateway{path}", **how)

    try:
        wait_for((config.parent / "data" / "node.json").exists, "the node listens", 30)
        wait_for(lambda: ask("data", "GET", "/v2/health/ready").status_code == 200, "the node is ready", 30)
        yield process, ask
    finally:
        process.terminate()
        process.wait(30)


def test_l5_without_descriptors_the_port_pauses_and_the_others_answer(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text(HEAD.replace("workers: 2", "workers: 1") + FIXED)
    with running(config, workers=1, prefix=("prlimit", "--nofile=64")) as node, ExitStack() as held:
        for _ in range(100):  # more than it may have; the kernel accepts them all the same
            address = node.addresses["data"].split(":")
            held.enter_context(socket.create_connection((address[0], int(address[1]))))
        assert node.metrics()["gateway_workers"] == 1
        assert node.status()["workers"]
        held.close()
        wait_for(lambda: node.infer().status_code == 200, "it answers again")
        assert node.total("gateway_worker_deaths_total") == 0


@pytest.mark.anyio
async def test_l7_metrics_of_fifty_experiments_fit_into_five_mebibytes(tmp_path: Path) -> None:
    """4 variants, 3 metrics and 20 segments each, of every one an estimate; and every counter of a worker."""
    async with fifty_experiments(tmp_path) as (plane, worker):
        estimate_all(plane)
        text, _ = plane.exposition("")
        assert worker.page.words[Word.OVERFLOW] == 0
        assert text.count(b"\ngateway_experiment_effect{") == 50 * 3 * 3 * 21 * 3
        assert len(text) < 5 << 20
