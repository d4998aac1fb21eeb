"""Real model servers, a real gateway before them and in their stead, and the interpreters of the clients."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.process.conftest import HEAD
from tests.integration.process.node import Node, running, wait_for
from tests.unit.backends.tiny_onnx import extremes

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
TENSOR = {"datatype": "FP32", "shape": [-1, 1]}
MODEL = {
    "platform": "custom",
    "versions": ["1"],
    "inputs": [{"name": "features", "datatype": "FP32", "shape": [-1, 16]}],
    "outputs": [{"name": "largest", **TENSOR}, {"name": "smallest", **TENSOR}],
}


def program(environment: str, name: str) -> str:
    """A program of one of the environments; without them the tests are skipped, in CI they fail."""
    home = HERE / ".envs" / environment
    if not (home / ".installed").exists():
        absent = f"{home.relative_to(ROOT)} is missing: run `make clients`"
        if os.environ.get("CI") == "true":
            pytest.fail(absent)
        pytest.skip(absent)
    return str(home / "bin" / name)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def server(command: Sequence[str], port: int, folder: Path) -> Iterator[str]:
    """A model server as a child process, until it is ready; gives its URL."""
    url = f"http://127.0.0.1:{port}"
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=output, stderr=output)

    def ready() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return httpx.get(f"{url}/v2/health/ready", trust_env=False).is_success
        except httpx.HTTPError:
            return False

    try:
        wait_for(ready, "the model server is ready", 60)
        yield url
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="session")
def mlserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlserver")
    port = free_port()
    settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": free_port(), "metrics_endpoint": None}
    implementation = "tests.clients.upstreams.mlserver_model.Extremes"
    model = {"name": "ml", "implementation": implementation, "parameters": {"version": "1"}} | MODEL
    (folder / "settings.json").write_text(json.dumps(settings | {"parallel_workers": 0}))
    (folder / "model-settings.json").write_text(json.dumps(model))
    with server([program("mlserver", "mlserver"), "start", str(folder)], port, folder) as url:
        yield url


@pytest.fixture(scope="session")
def kserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    command = [program("kserve", "python"), "-m", "tests.clients.upstreams.kserve_model", "ks", str(port)]
    with server(command, port, tmp_path_factory.mktemp("kserve")) as url:
        yield url


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory, mlserver: str, kserver: str) -> Iterator[Node]:
    """One gateway with the same model three times: in the process (onnx), behind MLServer (ml) and KServe (ks)."""
    folder = tmp_path_factory.mktemp("node")
    extremes(folder / "a.onnx")
    extremes(folder / "b.onnx", opset=16)
    config = folder / "gateway.yaml"
    endpoints = _endpoint("onnx", "onnx: a.onnx", "onnx: b.onnx")
    for name, url in (("ml", mlserver), ("ks", kserver)):
        endpoints += _endpoint(name, f'url: "{url}"', f'url: "{url}"')
    config.write_text(HEAD.replace("workers: 2", "workers: 1") + endpoints)
    with running(config, workers=1) as started:
        yield started


def _endpoint(name: str, champion: str, challenger: str) -> str:
    return f"""\
  {name}:
    protocol: oip
    variants:
      a: {{role: champion, {champion}}}
      b: {{role: challenger, {challenger}}}
    traffic: {{a: 50%, b: 50%}}
"""


def results(client: str, address: str, model: str, scenarios: Sequence[str] = ()) -> dict[str, Any]:
    """What a client's script got from a server (host:port), by scenario; the server is named SERVER in it."""
    environment = "kserve" if client.startswith("kserve") else "mlserver"
    command = [program(environment, "python"), "-m", f"tests.clients.talk.{client}", address, model, *scenarios]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    got: dict[str, Any] = json.loads(done.stdout.replace(address, "SERVER"))
    return got
