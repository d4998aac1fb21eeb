"""The servers under test: how each is configured and started, and which version of it is there.

Everything of a peer that is fixed lies in `peers/`; `make peers` builds its environment in `.peers/`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import LOAD_CORE, BenchmarkError, Tree, answers, free_port, running
from benchmarks.results_file import ROOT

PEERS = ROOT / "benchmarks" / "peers"
BUILT = ROOT / "benchmarks" / ".peers"
_ON_LOOP = ["--host", "127.0.0.1", "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "error"]


@dataclass(frozen=True, slots=True)
class Upstreams:
    """Two upstreams that answer by themselves; `a` is the champion's."""

    a: str
    b: str

    @property
    def ports(self) -> dict[str, str]:
        return {"a": self.a.rsplit(":", 1)[1], "b": self.b.rsplit(":", 1)[1]}


@contextmanager
def upstreams(folder: Path, answer_a: str, answer_b: str) -> Iterator[Upstreams]:
    """nginx on the load's core, with a fixed JSON answer on each of two ports."""
    ports = {"a": str(free_port()), "b": str(free_port())}
    values = {**ports, "answer_a": answer_a, "answer_b": answer_b}
    home = _filled(PEERS / "nginx" / "upstream.conf", folder / "upstream", values)
    up = Upstreams(f"http://127.0.0.1:{ports['a']}", f"http://127.0.0.1:{ports['b']}")
    with running("upstream", _nginx(home), home.parent, answers(up.b), cores=str(LOAD_CORE)):
        yield up


@contextmanager
def nginx(folder: Path, up: Upstreams) -> Iterator[tuple[Tree, str]]:
    url, port = address()
    conf = _filled(PEERS / "nginx" / "split.conf", folder / "nginx", {**up.ports, "port": port})
    with running("nginx", _nginx(conf), conf.parent, answers(url)) as tree:
        yield tree, url


@contextmanager
def envoy(folder: Path, up: Upstreams) -> Iterator[tuple[Tree, str]]:
    url, port = address()
    conf = _filled(PEERS / "envoy" / "envoy.yaml", folder / "envoy", {**up.ports, "port": port})
    flags = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    with running("envoy", [_envoy(), "-c", str(conf), *flags], conf.parent, answers(url)) as tree:
        yield tree, url


@contextmanager
def proxy(name: str, folder: Path, up: Upstreams) -> Iterator[tuple[Tree, str]]:
    """A proxy written in Python, `peers/<name>/app.py`, under uvicorn."""
    environment = {"UPSTREAM_A": up.a, "UPSTREAM_B": up.b}
    with under_uvicorn(name, folder, "/", None, python=peer_python(name), environment=environment) as running_one:
        yield running_one


@contextmanager
def under_uvicorn(
    name: str,
    folder: Path,
    path: str,
    body: bytes | None,
    *,
    python: str = sys.executable,
    environment: Mapping[str, str] | None = None,
) -> Iterator[tuple[Tree, str]]:
    """`peers/<name>/app.py` under uvicorn with uvloop and httptools, one process, nothing logged."""
    url, port = address()
    command = [python, "-m", "uvicorn", "app:app", "--app-dir", str(PEERS / name), "--port", port, *_ON_LOOP]
    home = folder / name
    home.mkdir(parents=True, exist_ok=True)
    with running(name, command, home, answers(url + path, body), environment=environment) as tree:
        yield tree, url


@contextmanager
def mlserver(folder: Path, model: Path, path: str, body: bytes) -> Iterator[tuple[Tree, str]]:
    """MLServer with a custom runtime; no parallel workers, so that everything is one process."""
    url, port = address()
    values = {"port": port, "grpc": str(free_port()), "metrics": str(free_port()), "model": str(model)}
    home = folder / "mlserver"
    for name in ("settings.json", "model-settings.json", "runtime.py"):
        _filled(PEERS / "mlserver" / name, home, values)
    command = [_script("mlserver", "mlserver"), "start", str(home)]
    with running("mlserver", command, home, answers(url + path, body)) as tree:
        yield tree, url


@contextmanager
def bentoml(folder: Path, model: Path, path: str, body: bytes) -> Iterator[tuple[Tree, str]]:
    """BentoML with one worker; its access log is off."""
    url, port = address()
    home = folder / "bentoml"
    home.mkdir(parents=True, exist_ok=True)
    environment = {
        "MODEL": str(model),
        "BENTOML_HOME": str(home),
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_CONFIG_OPTIONS": "api_server.logging.access.enabled=false",
    }
    command = [_script("bentoml", "bentoml"), "serve", "service:Predict", "--working-dir", str(PEERS / "bentoml")]
    command += ["--host", "127.0.0.1", "--port", port]
    with running("bentoml", command, home, answers(url + path, body), environment=environment) as tree:
        yield tree, url


@contextmanager
def litellm(folder: Path, plain: Upstreams, streamed: Upstreams, path: str, body: bytes) -> Iterator[tuple[Tree, str]]:
    """LiteLLM's proxy with two weighted deployments, one worker, its own price list instead of the one it fetches."""
    url, port = address()
    values = {"a": plain.a, "b": plain.b, "streamed_a": streamed.a, "streamed_b": streamed.b}
    conf = _filled(PEERS / "litellm" / "config.yaml", folder / "litellm", values)
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "NO_PROXY": "127.0.0.1"}
    command = [_script("litellm", "litellm"), "--config", str(conf), "--host", "127.0.0.1", "--port", port]
    with running("litellm", command, conf.parent, answers(url + path, body), environment=environment) as tree:
        yield tree, url


def versions(names: Iterable[str]) -> dict[str, str]:
    """What each server calls its version, by name of the server."""
    found = {}
    for name in names:
        if name == "nginx":
            said = subprocess.run([_program("nginx"), "-v"], capture_output=True, text=True, check=True).stderr
            found[name] = said.strip().rpartition("/")[2]
        elif (PEERS / name / "requirements.txt").exists():
            pins = (PEERS / name / "requirements.txt").read_text().splitlines()
            found[name] = ", ".join(pin for pin in pins if pin and not pin.startswith("#"))
    return found


def peer_python(name: str) -> str:
    """The interpreter of a peer's own environment."""
    return _built(BUILT / name / "bin" / "python")


def file_types() -> Path:
    """Magika's model."""
    folder = BUILT / "magika"
    return Path(_built(next(folder.glob("lib/*/site-packages/magika/models/*/model.onnx"), folder)))


def _script(name: str, script: str) -> str:
    return _built(BUILT / name / "bin" / script)


def _envoy() -> str:
    return _built(next((BUILT / "envoy").glob("lib/python3*/site-packages/envoy/_bin/envoy"), BUILT / "envoy"))


def _built(path: Path) -> str:
    if not path.is_file():
        raise BenchmarkError(f"{path.relative_to(ROOT)} is missing: run `make peers`")
    return str(path)


def _nginx(conf: Path) -> list[str]:
    return [_program("nginx"), "-p", f"{conf.parent}/", "-c", str(conf), "-e", "stderr"]


def _program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise BenchmarkError(f"{name} is not installed: run `make peers`")
    return found


def address() -> tuple[str, str]:
    """URL and port of a server to come."""
    port = free_port()
    return f"http://127.0.0.1:{port}", str(port)


def _filled(template: Path, folder: Path, values: Mapping[str, str]) -> Path:
    """A copy of the template in the folder, with @name@ replaced by its value."""
    folder.mkdir(parents=True, exist_ok=True)
    text = template.read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    made = folder / template.name
    made.write_text(text)
    return made
