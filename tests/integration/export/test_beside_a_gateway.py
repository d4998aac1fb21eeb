"""Beside a real gateway under load: events follow, an export is of one moment, and nobody moves a store in use."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import gateway
from tests.integration.process.conftest import experiment_node
from tests.integration.process.node import Load, Node, wait_for
from tests.postgres import PostgresServer
from tests.unit.export.receiver import Receiver

__all__ = ["experiment_node"]

pytestmark = pytest.mark.process


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "gateway.cli", *map(str, words)]


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), capture_output=True, text=True, timeout=100, check=False)


def test_the_log_gets_out_while_it_is_written(experiment_node: Node, tmp_path: Path, postgres: PostgresServer) -> None:
    config, target = experiment_node.config, postgres.dsn(postgres.create())
    with Receiver() as receiver:
        follow = subprocess.Popen(
            command("outbox", config, "--to", receiver.url, "--name", "lake", "--follow"), stderr=subprocess.PIPE
        )
        with Load(experiment_node) as load:
            load.more(300)
            exported = run("export", config, "--to", tmp_path / "log", "--json")
            assert exported.returncode == 0, exported.stderr
            with gateway.connect(str(config)) as log:
                seen = log.exposures()
            refused = run("migrate", "--from", config, "--to", target)
            assert (refused.returncode, "a gateway serves from this folder" in refused.stderr) == (1, True)
            load.more(300)
        tokens = [experiment_node.infer().headers["x-gateway-decision"] for _ in range(30)]
        outcomes = [{"decision": token, "metric": "brier", "value": 0.25} for token in tokens]
        experiment_node.client.post(experiment_node.url("data", "/v1/outcomes"), json=outcomes).raise_for_status()
        answered = load.done + len(tokens)
        wait_for(
            lambda: sum(one.body.count(b"\n") for one in receiver.kept) >= answered + 31, "all events arrive", 30.0
        )
        follow.terminate()
        assert follow.wait(30) == 0
        follow.communicate()
    assert load.failures() == {}
    kinds = [event["type"] for event in receiver.events]
    assert len(kinds) == len({event["id"] for event in receiver.events})
    assert (kinds.count("gateway.exposure"), kinds.count("gateway.outcome")) == (answered, 30)
    assert all(event["data"]["ended"] == "answered" for event in receiver.events if event["id"].startswith("exposure"))
    assert 0 < len(seen) <= answered
    assert json.loads(exported.stdout)["tables"]["exposures"]["rows"] <= answered
    assert (config.parent / "data" / "outbox" / "lake.json").exists()

    experiment_node.stop()
    moved = run("migrate", "--from", config, "--to", target, "--json")
    assert moved.returncode == 0, moved.stderr
    document = json.loads(moved.stdout)
    assert document["tables"]["assignment"]["rows"] == answered
    assert document["unread_spools"] == []
    with gateway.connect(target) as log:
        assert len(log.exposures()) == answered
        assert len(log.outcomes()) == 30
