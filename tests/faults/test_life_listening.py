"""Places to listen on: ports that are taken, IPv6, socket files, no descriptors. Real processes."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.process.conftest import FIXED, HEAD
from tests.integration.process.node import infer_body, running, wait_for

pytestmark = pytest.mark.process


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
