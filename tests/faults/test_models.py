"""Faults of models in the process: what clients see, what the log keeps, and against which variant it counts."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from gateway.backends.onnx import digest, load
from gateway.backends.onnx.batching import LARGE
from gateway.memory import resident
from tests.faults import crashing_node
from tests.faults.crashing_worker import CRASHES
from tests.integration.process.conftest import EXPERIMENT, FIXED, HEAD
from tests.integration.process.node import MODELS, Load, Node, running, wait_for
from tests.integration.process.test_model_swap import SECOND
from tests.unit.backends import tiny_onnx
from tests.unit.backends.models import unload, within

FLIGHT = "flight-delay"
BOOSTED, LOGISTIC, TWIN = (digest(MODELS / f"{name}.onnx") for name in ("boosted", "logistic", "twin"))


@dataclass
class Crashing:
    """A node in whose workers some models crash."""

    node: Node
    crashes: Path

    def crash(self, *what: str) -> None:
        """From now on: "run <digest>" or "load <digest>"; nothing ends it."""
        self.crashes.write_text("\n".join(what))

    def workers(self) -> list[int]:
        return self.node.child(crashing_node.WORKER)

    def deaths(self) -> float:
        return self.node.metrics().get('gateway_worker_deaths_total{signal="SIGSEGV"}', 0.0)

    def counted(self, variant: str) -> float:
        name = f'gateway_model_crashes_total{{endpoint="{FLIGHT}",variant="{variant}"}}'
        return self.node.metrics().get(name, 0.0)

    def without_traffic(self) -> list[str]:
        """Why a variant gets none, as the status tells."""
        return [error for one in self.node.status()["endpoints"][FLIGHT]["preparing"] for error in one["errors"]]

    def split(self) -> dict[str, float]:
        split: dict[str, float] = self.node.status()["endpoints"][FLIGHT]["split"]
        return split

    def served_by_all(self) -> bool:
        return len(self.node.status()["workers"]) == 2 and self.node.converged()


@contextmanager
def crashing(folder: Path, text: str, *at_first: str) -> Iterator[Crashing]:
    config, crashes = folder / "gateway.yaml", folder / "crashes"
    config.write_text(HEAD + text)
    crashes.write_text("\n".join(at_first))
    with running(config, workers=2, module=crashing_node.__name__, environment={CRASHES: str(crashes)}) as node:
        yield Crashing(node, crashes)


def ended(node: Node, variant: str) -> dict[str, int]:
    """How the requests that were assigned to a variant ended, as the store has them."""
    database = sqlite3.connect(f"file:{node.config.parent / 'data' / 'gateway.db'}?mode=ro", uri=True)
    try:
        query = "SELECT coalesce(ended, 'open'), count(*) FROM exposure WHERE variant = ? GROUP BY 1"
        return dict(database.execute(query, (variant,)).fetchall())
    finally:
        database.close()


@pytest.mark.process
def test_m6_a_challenger_that_crashes_in_native_code_is_rolled_back_and_never_loaded_again(tmp_path: Path) -> None:
    text = EXPERIMENT.replace("traffic: 10%", "traffic: 40%")
    with crashing(tmp_path, text) as gateway, Load(gateway.node) as load:
        node = gateway.node
        load.more(50)
        gateway.crash(f"run {BOOSTED}", f"load {BOOSTED}")  # whoever loads it again would die
        wait_for(lambda: gateway.split() == {"logistic": 1.0}, "the rollback", 30)
        wait_for(gateway.served_by_all, "two workers on the plan without it", 30)
        stopped, workers = dict(load.answers), gateway.workers()
        load.more(100)
        # What was in flight in two workers is lost, and nothing else: one request for each client's thread and crash.
        lost = sum(count for answer, count in stopped.items() if answer != 200)
        assert 2 <= lost <= 8, load.answers
        assert {answer: load.answers[answer] for answer in stopped if answer != 200} == {
            answer: count for answer, count in stopped.items() if answer != 200
        }
        assert gateway.workers() == workers
        assert gateway.deaths() == gateway.counted("boosted") == 2
        assert f"{FLIGHT}/boosted is stopped on this node" in node.log
        _, row = node.client.get(node.url("admin", "/api/decisions")).json()["decisions"]
        assert (row["kind"], row["body"]["reason"], row["body"]["variant"]) == ("rollback", "crashes", "boosted")
        assert "2 workers crashed" in row["body"]["text"]
        assert "SIGSEGV" in gateway.without_traffic()[0]
        # The assignment was written before the run, so those who were lost count for the variant that lost them.
        wait_for(lambda: ended(node, "boosted").get("open", 0) >= 2, "the assignments without an end are kept")


@pytest.mark.process
def test_m6_a_fixed_split_does_without_the_challenger_that_crashes_until_its_file_changes(tmp_path: Path) -> None:
    text = FIXED.replace(f"{MODELS}/twin.onnx", str(tmp_path / "twin.onnx")).replace("80%", "60%").replace("20%", "40%")
    (tmp_path / "twin.onnx").write_bytes((MODELS / "twin.onnx").read_bytes())
    with crashing(tmp_path, text.replace(str(tmp_path), ".")) as gateway:
        with Load(gateway.node) as load:
            gateway.crash(f"run {TWIN}")
            wait_for(lambda: gateway.split() == {"logistic": 1.0}, "the champion has all", 30)
            wait_for(gateway.served_by_all, "two workers on the plan without it", 30)
            load.more(20)
        assert gateway.deaths() == gateway.counted("twin") == 2
        (tmp_path / "twin.onnx").write_bytes((MODELS / "boosted.onnx").read_bytes())
        gateway.node.client.post(gateway.node.url("admin", "/-/reload")).raise_for_status()
        wait_for(lambda: gateway.split().get("twin") == pytest.approx(0.4), "the new file has its part")
        assert gateway.without_traffic() == []


@pytest.mark.process
def test_m6_a_champion_that_crashes_stays_and_is_told(tmp_path: Path) -> None:
    with crashing(tmp_path, FIXED) as gateway:
        gateway.crash(f"run {LOGISTIC}")
        with Load(gateway.node, 1) as load:
            wait_for(lambda: gateway.counted("logistic") >= 2, "two crashes", 30)
            gateway.crash()
            wait_for(gateway.served_by_all, "two workers again", 30)
            load.more(20)
        assert gateway.split() == pytest.approx({"logistic": 0.8, "twin": 0.2})
        assert gateway.without_traffic() == []


@pytest.mark.process
def test_m6_a_model_that_crashes_who_loads_it_is_given_up_after_two(tmp_path: Path) -> None:
    with crashing(tmp_path, FIXED, f"load {BOOSTED}") as gateway, Load(gateway.node) as load:
        node = gateway.node
        load.more(20)
        node.edit(
            "    traffic: {logistic: 80%, twin: 20%}\n",
            f"      boosted: {{role: challenger, onnx: {MODELS}/boosted.onnx}}\n"
            "    traffic: {logistic: 60%, twin: 20%, boosted: 20%}\n",
        )
        wait_for(lambda: any("SIGSEGV" in why for why in gateway.without_traffic()), "it is given up", 30)
        wait_for(gateway.served_by_all, "two workers again", 30)
        workers = gateway.workers()
        load.more(50)
        assert gateway.split() == pytest.approx({"logistic": 0.8, "twin": 0.2})
        assert gateway.workers() == workers
        assert gateway.counted("boosted") == 2


@pytest.mark.process
def test_m6_a_model_that_crashes_the_control_process_is_refused_and_the_last_config_stays(tmp_path: Path) -> None:
    with crashing(tmp_path, FIXED, f"read {BOOSTED}") as gateway, Load(gateway.node) as load:
        node, workers = gateway.node, gateway.workers()
        load.more(20)
        node.edit("logistic.onnx", "boosted.onnx")
        wait_for(lambda: _problems(node), "the refusal", 30)
        assert "brought down the control process 2 times" in _problems(node)[0]
        load.more(20)
        assert load.failures() == {}
        assert gateway.workers() == workers
        assert gateway.split() == pytest.approx({"logistic": 0.8, "twin": 0.2})


def _problems(node: Node) -> list[str]:
    """Why the config was refused, once somebody is there to tell."""
    try:
        problems: list[str] = node.status()["config"]["problems"]
    except httpx.HTTPError:
        return []
    return problems


@pytest.mark.anyio
async def test_m7_a_large_request_gives_back_the_memory_that_its_run_took(tmp_path: Path) -> None:
    """In between lies a matrix of half a GiB; kept, it would be there for good."""
    model = load(tiny_onnx.heavy(tmp_path / "m.onnx", 1 << 20), "")
    rows = np.ones((8192, tiny_onnx.FEATURES), np.float32)
    assert rows.size > LARGE
    try:
        before = resident()
        for _ in range(2):
            await model.infer({"features": rows}, within(60))
        assert resident() < before + (64 << 20)
    finally:
        unload(model)


@pytest.mark.process
def test_m7_a_worker_that_grows_too_large_gives_way_to_another_without_a_lost_request(tmp_path: Path) -> None:
    """Two grow at once; one leaves, and the next no sooner than a minute later."""
    config = tmp_path / "gateway.yaml"
    shutil.copyfile(MODELS / "logistic.onnx", tmp_path / "one.onnx")
    config.write_text(HEAD.replace("workers: 2", "workers: 2, max_memory: 192MiB") + FIXED + SECOND)
    with running(config, workers=2) as node, Load(node) as load:
        load.more(20)
        before = node.child("gateway.worker")
        tiny_onnx.heavy(tmp_path / "one.onnx", 256 << 20)
        node.client.post(node.url("admin", "/-/reload"), timeout=60).raise_for_status()
        wait_for(lambda: node.metrics().get("gateway_workers_recycled_total", 0) >= 1, "one has given way", 60)
        after = node.child("gateway.worker")
        assert len(after) == 2, "another was there before it left"
        assert len(set(before) & set(after)) == 1, "one at a time"
        load.more(50)
        assert load.failures() == {}
        assert node.total("gateway_worker_deaths_total") == 0
        assert "holds more than" in node.log


def test_m8_a_model_has_the_threads_that_it_was_given_and_they_sleep(tmp_path: Path) -> None:
    """Beside its own, which waits for requests: with spinning threads, idle models would take the cores."""
    path = tiny_onnx.heavy(tmp_path / "m.onnx", 1 << 20)
    before = threads()
    models = [load(path, "", threads=number) for number in (1, 3)]
    try:
        own = threads() - before
        assert len(own) == (1 + 0) + (1 + 2)  # the caller of a run is one of them
        began = spent(own)
        time.sleep(0.2)
        assert spent(own) - began < 0.1
    finally:
        for model in models:
            unload(model)


def threads() -> set[str]:
    return set(os.listdir("/proc/self/task"))


def spent(of: set[str]) -> float:
    """Seconds of CPU that these threads of ours have had."""
    times = (Path(f"/proc/self/task/{thread}/stat").read_text().rsplit(")", 1)[1].split() for thread in of)
    return sum(int(fields[11]) + int(fields[12]) for fields in times) / os.sysconf("SC_CLK_TCK")
