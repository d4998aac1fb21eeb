"""A node from outside: metrics over several workers, commands, refusals, bad input."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.process.node import Load, Node, infer_body, wait_for

pytestmark = pytest.mark.process


def _gateway(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "gateway.cli", *arguments], capture_output=True, text=True, timeout=60)


def test_metrics_are_the_sum_of_all_workers(fixed_node: Node) -> None:
    with Load(fixed_node) as load:
        load.more(300)
    metrics = fixed_node.metrics()
    assert metrics["gateway_workers"] == 2
    assert fixed_node.total("gateway_completions_total") == load.done
    assert metrics['gateway_responses_total{code="200",endpoint="flight-delay"}'] == load.done
    assert fixed_node.total("gateway_request_duration_seconds_count") == load.done
    assert metrics['gateway_split_ratio{endpoint="flight-delay",variant="twin"}'] == pytest.approx(0.2)


def test_the_realised_split_is_the_configured_one(fixed_node: Node) -> None:
    with Load(fixed_node) as load:
        load.more(1000)
    twin = fixed_node.total(
        'gateway_completions_total{endpoint="flight-delay",experiment="",result="ok",variant="twin"'
    )
    share = twin / load.done
    assert abs(share - 0.2) < 4 * (0.2 * 0.8 / load.done) ** 0.5


def test_an_outcome_reaches_the_evidence_of_its_variant(experiment_node: Node) -> None:
    tokens = [experiment_node.infer().headers["x-gateway-decision"] for _ in range(40)]
    outcomes = [{"decision": token, "metric": "brier", "value": 0.25} for token in tokens]
    answer = experiment_node.client.post(experiment_node.url("data", "/v1/outcomes"), json=outcomes)
    assert answer.json() == {"accepted": 40, "durability": "process"}
    report = wait_for(lambda: _folded(experiment_node, 40), "40 units folded")
    brier = next(e for e in report["estimates"] if e["metric"] == "brier" and not e["segment"])
    assert sum(brier["units"]) == 40
    assert report["missing"] == [0.0, 0.0]


def _folded(node: Node, units: int) -> dict[str, object] | None:
    report = node.status()["endpoints"]["flight-delay"]["experiment"]["report"]
    return report if report and report["folded"] >= units else None


def test_a_person_holds_resumes_and_rolls_back_and_the_ledger_remembers(experiment_node: Node) -> None:
    config = str(experiment_node.config)
    held = _gateway("hold", "--config", config, "flight-delay", "--reason", "lunch")
    assert (held.returncode, "running, held (lunch), champion logistic" in held.stdout) == (0, True)
    assert experiment_node.status()["endpoints"]["flight-delay"]["experiment"]["hold"] == "lunch"
    assert _gateway("resume", "--config", config, "flight-delay").returncode == 0
    done = _gateway("rollback", "--config", config, "flight-delay", "--reason", "not today")
    assert "rolled_back, champion logistic, split logistic 1" in done.stdout
    refused = _gateway("promote", "--config", config, "flight-delay")
    assert refused.returncode == 1
    assert "rolled_back: promote is not possible" in refused.stderr
    wait_for(experiment_node.converged, "all workers on the new plan")
    rows = experiment_node.client.get(experiment_node.url("admin", "/api/decisions")).json()["decisions"]
    assert [(row["kind"], row["body"]["text"]) for row in rows[1:]] == [
        ("hold", "lunch"),
        ("resume", rows[2]["body"]["text"]),
        ("rollback", "not today"),
    ]


def test_a_person_can_look_and_roll_back_while_the_file_is_broken(experiment_node: Node) -> None:
    with experiment_node.config.open("a") as file:
        file.write("\n  oops: [1,\n")
    wait_for(lambda: not experiment_node.status()["config"]["ok"], "the refusal")
    config = str(experiment_node.config)
    assert "config refused, the last good one stays" in _gateway("status", "--config", config).stdout
    assert _gateway("rollback", "--config", config, "flight-delay").returncode == 0
    assert experiment_node.status()["endpoints"]["flight-delay"]["split"] == {"logistic": 1.0}


def test_status_is_shown_to_people_and_to_programs(experiment_node: Node) -> None:
    config = str(experiment_node.config)
    shown = _gateway("status", "--config", config).stdout
    assert "experiment boosted-vs-logistic: [traffic-10%] → traffic-50%" in shown
    document = json.loads(_gateway("status", "--config", config, "--json").stdout)
    assert document["endpoints"]["flight-delay"]["split"] == pytest.approx({"boosted": 0.1, "logistic": 0.9})


@pytest.mark.parametrize(
    ("path", "content", "status", "word"),
    [
        ("/v2/models/flight-delay/infer", b'{"inputs": [', 400, "not valid JSON"),
        ("/v2/models/flight-delay/infer", b'{"inputs": []}', 400, "features"),
        ("/v2/models/nowhere/infer", b"{}", 404, "nowhere"),
        ("/nowhere/x", b"{}", 404, "nowhere"),
        ("/v1/outcomes", b'{"decision": "forged", "metric": "brier", "value": 0.1}', 403, "token"),
        ("/v1/outcomes", b'{"decision": "forged", "metric": "brier", "value": NaN}', 400, "JSON"),
    ],
)
def test_bad_input_gets_a_clear_error_with_a_request_id(
    experiment_node: Node, path: str, content: bytes, status: int, word: str
) -> None:
    answer = experiment_node.client.post(
        experiment_node.url("data", path), content=content, headers={"x-request-id": "asked"}
    )
    assert answer.status_code == status
    assert answer.headers["x-request-id"] == "asked"
    body = answer.json()
    assert word in (body["error"] if path.startswith("/v2") else body["detail"])
    assert experiment_node.total("gateway_completions_total") == 0


def test_a_node_with_a_bad_config_ends_with_78_and_the_line(tmp_path: Path) -> None:
    config = tmp_path / "bad.yaml"
    config.write_text("version: 1\nendpoints:\n  a: {protocol: oip, variant: {}}\n")
    done = _gateway("serve", "--config", str(config))
    assert done.returncode == 78
    assert "bad.yaml:3" in done.stderr
    assert "variants" in done.stderr


def test_a_taken_port_and_a_taken_data_directory_are_said_in_one_line(fixed_node: Node, tmp_path: Path) -> None:
    second = tmp_path / "second"
    second.mkdir()
    config = second / "gateway.yaml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = fixed_node.config.read_text()
        config.write_text(text.replace('data: {listen: "127.0.0.1:0"', f'data: {{listen: "127.0.0.1:{port}"', 1))
        done = _gateway("serve", "--config", str(config))
        assert done.returncode == 1
        assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in done.stderr
    again = _gateway("serve", "--config", str(fixed_node.config))
    assert again.returncode == 1
    assert "another gateway uses this data directory" in again.stderr


def test_infer_answers_with_an_open_inference_document(fixed_node: Node) -> None:
    document = fixed_node.client.post(
        fixed_node.url("data", "/v2/models/flight-delay/infer"), json={"id": "7", **infer_body()}
    ).json()
    assert document["model_name"] == "flight-delay"
    assert document["id"] == "7"
    (output,) = document["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("probability", "FP32", [1, 1])
    assert 0 < output["data"][0] < 1
