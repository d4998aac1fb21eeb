"""A config edited under a running node: taken within two seconds, or refused loudly; no request fails."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from tests.integration.process.node import MODELS, Load, Node, wait_for

pytestmark = pytest.mark.process
WITHIN = 2.0  # seconds for an edit to take effect; waits allow for a busy machine and the time is asserted apart
SLACK = 1.0


def _split(node: Node, endpoint: str = "flight-delay") -> dict[str, float]:
    split: dict[str, float] = node.status()["endpoints"][endpoint]["split"]
    return split


def _served(node: Node, endpoint: str) -> bool:
    """Whether the endpoint is there and waits for no model."""
    found = node.status()["endpoints"].get(endpoint)
    return found is not None and bool(found["split"]) and not found["preparing"]


def _takes_effect(node: Node, twin: float) -> None:
    started = time.monotonic()
    wait_for(lambda: _split(node).get("twin") == pytest.approx(twin) and node.converged(), f"twin at {twin}")
    assert time.monotonic() - started < WITHIN + SLACK


def test_an_edited_split_takes_effect_without_a_failed_request(fixed_node: Node) -> None:
    with Load(fixed_node) as load:
        load.more(50)
        fixed_node.edit("logistic: 80%, twin: 20%", "logistic: 50%, twin: 50%")
        _takes_effect(fixed_node, 0.5)
        load.more(50)
    assert load.failures() == {}


def test_a_new_variant_and_endpoint_are_served_without_a_restart(fixed_node: Node) -> None:
    workers = fixed_node.child("gateway.worker")
    fixed_node.edit(
        "    traffic: {logistic: 80%, twin: 20%}\n",
        f"      boosted: {{role: challenger, onnx: {MODELS}/boosted.onnx}}\n"
        "    traffic: {logistic: 60%, twin: 20%, boosted: 20%}\n"
        "  second:\n    protocol: oip\n"
        f"    variants: {{logistic: {{role: champion, onnx: {MODELS}/logistic.onnx}}}}\n",
    )
    wait_for(lambda: _served(fixed_node, "second") and fixed_node.converged(), "the new endpoint")
    assert _split(fixed_node) == pytest.approx({"logistic": 0.6, "twin": 0.2, "boosted": 0.2})
    assert fixed_node.client.get(fixed_node.url("data", "/v2/models/second/ready")).status_code == 200
    assert fixed_node.child("gateway.worker") == workers


def test_a_broken_edit_keeps_the_last_good_config_and_says_so(fixed_node: Node) -> None:
    good = fixed_node.config.read_text()
    assert fixed_node.metrics()["gateway_config_last_reload_successful"] == 1.0
    fixed_node.edit("twin: 20%", "twin: 30%")
    status = wait_for(lambda: _refused(fixed_node), "the refusal")
    line = 1 + good[: good.index("traffic:")].count("\n")
    (problem,) = status["config"]["problems"]
    assert f"gateway.yaml:{line}: endpoints.flight-delay.traffic:" in problem
    assert fixed_node.metrics()["gateway_config_last_reload_successful"] == 0.0
    assert "the config was refused" in fixed_node.log
    assert _split(fixed_node)["twin"] == pytest.approx(0.2)
    assert fixed_node.infer().status_code == 200
    fixed_node.config.write_text(good)
    wait_for(lambda: fixed_node.status()["config"]["ok"], "the good config again")
    assert fixed_node.metrics()["gateway_config_last_reload_successful"] == 1.0


def _refused(node: Node) -> dict[str, Any] | None:
    status = node.status()
    return None if status["config"]["ok"] else status


def test_a_file_replaced_by_rename_is_seen_each_time(fixed_node: Node) -> None:
    for share in (30, 40, 50):
        text = fixed_node.config.read_text()
        old = text[text.index("traffic:") :]
        replacement = fixed_node.config.with_name("next.yaml")
        replacement.write_text(text.replace(old, f"traffic: {{logistic: {100 - share}%, twin: {share}%}}\n"))
        replacement.rename(fixed_node.config)
        _takes_effect(fixed_node, share / 100)


def test_a_symlink_swapped_as_kubernetes_does_is_seen_each_time(fixed_node: Node) -> None:
    folder = fixed_node.config.parent
    text = fixed_node.config.read_text()
    fixed_node.config.unlink()
    old = text[text.index("traffic:") :]
    for share in (30, 40, 50):
        version = folder / f"..{share}"
        version.mkdir()
        (version / "gateway.yaml").write_text(
            text.replace(old, f"traffic: {{logistic: {100 - share}%, twin: {share}%}}\n")
        )
        (folder / "..data.new").symlink_to(version.name)
        os.replace(folder / "..data.new", folder / "..data")
        if not fixed_node.config.is_symlink():
            fixed_node.config.symlink_to("..data/gateway.yaml")
        _takes_effect(fixed_node, share / 100)
