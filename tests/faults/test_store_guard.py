"""S8: a control process that starts while PostgreSQL is away still stops who fails, and is heard by Prometheus."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx
import pytest

from gateway import plan as plans
from tests.integration.process.conftest import EXPERIMENT, HEAD
from tests.integration.process.node import Load, Node, running, wait_for
from tests.postgres import PostgresServer, free_port

pytestmark = pytest.mark.process
KEYS = "keys: {signing: ['${SIGNING}'], pepper: '${PEPPER}'}\n"
SECRETS = {"SIGNING": "5" * 64, "PEPPER": "7" * 64}


def test_s8_a_control_process_that_starts_without_its_store_still_has_the_kill_rule(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    with PostgresServer() as server:
        store = f"store: {server.dsn(server.create())}\n"
        config.write_text(store + KEYS + (HEAD + EXPERIMENT).replace("boosted.onnx", "crashing.onnx"))
        with running(config, workers=2, environment=SECRETS) as node:
            wait_for(lambda: _challengers(node) == {"boosted"}, "the experiment is served", 30)
            server.stop("fast")
            before = node.child("gateway.control")
            os.kill(before[0], signal.SIGKILL)
            wait_for(lambda: _waits(node), "a control process that waits for its store", 30)
            assert node.metrics()["gateway_store_up"] == 0
            with Load(node) as load:
                wait_for(lambda: _challengers(node) == set(), "the challenger is stopped", 30)
                wait_for(lambda: _served(node) == {_plan(node).revision}, "every worker serves that")
                load.more(20)
            assert load.failures() == {}
            assert [halt["reason"] for halt in node.status()["halts"]] == ["kill_rule"]
            assert node.metrics()["gateway_halts"] == 1
            assert node.total("gateway_completions_total") == load.done
            server.start()
            wait_for(lambda: _status(node) == "rolled_back", "the ledger has heard of it", 30)
            assert node.status()["halts"] == []
            assert node.total("gateway_completions_total") == load.done, "sums do not fall"
            rows = node.client.get(node.url("admin", "/api/decisions")).json()["decisions"]
            assert [row["kind"] for row in rows] == ["start", "rollback"]
            assert rows[-1]["body"]["reason"] == "kill_rule"


def test_s8_a_new_node_that_cannot_reach_its_store_says_so_on_every_port(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    store = f"store: postgresql://u@127.0.0.1:{free_port()}/db\n"
    config.write_text(store + KEYS + HEAD + EXPERIMENT)
    with running(config, workers=0, environment=SECRETS) as node:
        wait_for(lambda: _waits(node), "a control process that waits for its store", 30)
        answer = node.client.get(node.url("data", "/v2/health/ready"))
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:gateway:no_plan")
        assert node.metrics()["gateway_store_up"] == 0
        assert "Connection refused" in node.status()["store"]["error"]
        assert "nothing is served" in node.log
        assert "Traceback" not in node.log


def _plan(node: Node) -> plans.Plan:
    return plans.decode((node.config.parent / "data" / "plan.json").read_bytes())


def _challengers(node: Node) -> set[str]:
    """Those that requests may reach."""
    path = node.config.parent / "data" / "plan.json"
    if not path.exists():
        return {"no plan"}
    (endpoint,) = _plan(node).endpoints
    return plans.shares(endpoint.slots).keys() - {endpoint.champion.name}


def _served(node: Node) -> set[int]:
    return {one["plan_revision"] for one in node.status()["workers"]}


def _waits(node: Node) -> bool:
    try:
        return not node.status()["store"]["ok"] and node.status()["node"] == 0
    except httpx.HTTPError:
        return False


def _status(node: Node) -> str:
    endpoint = node.status()["endpoints"].get("flight-delay")
    return str(endpoint["status"]) if endpoint else ""
