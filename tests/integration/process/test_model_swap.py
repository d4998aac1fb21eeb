"""Model files replaced under a running node: every worker prepares them, then they are swapped; nothing fails."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from gateway.backends.onnx import digest
from gateway.memory import resident
from gateway.plan import Plan, decode
from tests.integration.process.conftest import EXPERIMENT, HEAD
from tests.integration.process.node import MODELS, Load, Node, infer_body, running, wait_for
from tests.unit.backends import tiny_onnx

pytestmark = pytest.mark.process
LARGE = 64 << 20  # bytes: a model that takes a while to copy, to load and to give back
SWAPS = 3
ELSEWHERE = 3.0  # seconds within which a rollback must be served, busy machine included

SECOND = """\
  second:
    protocol: oip
    variants:
      one: {role: champion, onnx: one.onnx}
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    shutil.copyfile(MODELS / "logistic.onnx", tmp_path / "one.onnx")
    config = tmp_path / "gateway.yaml"
    config.write_text(HEAD + EXPERIMENT + SECOND)
    with running(config, workers=2) as made:
        yield made


def second(node: Node) -> Load:
    url = node.url("data", "/v2/models/second/infer")
    return Load(node, 2, lambda client, name: client.post(url, json=infer_body(), headers={"x-request-id": name}))


def put(node: Node, source: Path) -> str:
    """Replace the model file, and tell its digest."""
    found = digest(source)
    source.replace(node.config.with_name("one.onnx"))
    return found


def reload(node: Node) -> httpx.Response:
    return httpx.post(node.url("admin", "/-/reload"), timeout=30, trust_env=False)


def plan(node: Node) -> Plan:
    return decode((node.config.parent / "data" / "plan.json").read_bytes())


def serves(node: Node, sha256: str) -> bool:
    """Whether every worker answers from the model with this digest."""
    status = node.status()
    (served,) = (one.variants[0].digest for one in plan(node).endpoints if one.name == "second")
    return served == sha256 and not status["endpoints"]["second"]["preparing"] and node.converged()


def test_a_model_is_swapped_under_load_while_a_rollback_elsewhere_waits_for_nothing(node: Node, tmp_path: Path) -> None:
    workers = node.child("gateway.worker")
    with Load(node, 2) as elsewhere, second(node) as load:
        load.more(20)
        large = put(node, tiny_onnx.heavy(tmp_path / "large.onnx", LARGE))
        file = str(node.config.with_name("one.onnx"))
        wait_for(lambda: node.status()["config"]["changed_models"] == [file], "the change is told")
        taking = threading.Thread(target=reload, args=(node,))
        taking.start()
        began = time.monotonic()
        node.client.post(node.url("admin", "/api/endpoints/flight-delay/rollback")).raise_for_status()
        wait_for(lambda: node.converged(), "the rollback is served")
        assert time.monotonic() - began < ELSEWHERE
        assert node.status()["endpoints"]["flight-delay"]["split"] == {"logistic": 1.0}
        taking.join(30)
        wait_for(lambda: serves(node, large), "the large model", 30)
        load.more(20)
        elsewhere.more(20)
    assert load.failures() == elsewhere.failures() == {}
    assert node.child("gateway.worker") == workers


def test_a_broken_file_is_refused_and_what_serves_goes_on(node: Node, tmp_path: Path) -> None:
    before = plan(node).revision
    with second(node) as load:
        load.more(20)
        (tmp_path / "broken.onnx").write_bytes(b"no model")
        put(node, tmp_path / "broken.onnx")
        answer = reload(node)
        assert answer.status_code == 422
        assert "endpoints.second.variants.one.onnx" in answer.json()["problems"][0]
        load.more(20)
    assert load.failures() == {}
    assert plan(node).revision == before


def test_a_worker_that_starts_anew_finds_the_bytes_that_were_taken(node: Node, tmp_path: Path) -> None:
    taken = digest(node.config.with_name("one.onnx"))
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    put(node, tmp_path / "broken.onnx")
    victim = node.child("gateway.worker")[0]
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len(node.child("gateway.worker")) == 2 and victim not in node.child("gateway.worker"), "a new one")
    wait_for(lambda: len(node.status()["workers"]) == 2 and serves(node, taken), "the new one serves")


def test_models_that_were_swapped_out_give_their_memory_back(node: Node, tmp_path: Path) -> None:
    small = digest(node.config.with_name("one.onnx"))
    workers = node.child("gateway.worker")
    before = {pid: resident(pid) for pid in workers}
    with second(node) as load:
        for number in range(SWAPS):
            next_one = put(node, tiny_onnx.heavy(tmp_path / "next.onnx", LARGE + number * 64))
            assert reload(node).status_code == 200
            wait_for(partial(serves, node, next_one), f"model {number}", 30)
        shutil.copyfile(MODELS / "logistic.onnx", tmp_path / "small.onnx")
        put(node, tmp_path / "small.onnx")
        assert reload(node).status_code == 200
        wait_for(lambda: serves(node, small), "the small model again", 30)
        wait_for(lambda: all(resident(pid) < before[pid] + LARGE for pid in workers), "the memory comes back")
    assert load.failures() == {}
    kept = {path.stem for path in (node.config.parent / "data" / "models").glob("*.onnx")}
    assert kept == {one.digest for endpoint in plan(node).endpoints for one in endpoint.variants}, (
        "no copy is left over"
    )
