"""Nodes for the process tests: a fixed split and an experiment, on free ports in a folder of the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.process.node import MODELS, Node, running

HEAD = f"""\
version: 1
data: {{listen: "127.0.0.1:0", workers: 2}}
admin: {{listen: "127.0.0.1:0"}}
metrics: {{listen: "127.0.0.1:0"}}
data_dir: data
model_roots: [{MODELS}]
endpoints:
"""

FIXED = f"""\
  flight-delay:
    protocol: oip
    variants:
      logistic: {{role: champion, onnx: {MODELS}/logistic.onnx}}
      twin: {{role: challenger, onnx: {MODELS}/twin.onnx}}
    traffic: {{logistic: 80%, twin: 20%}}
"""

EXPERIMENT = f"""\
  flight-delay:
    protocol: oip
    segments:
      origin: {{from: "header:x-origin", values: [EWR, JFK, LGA]}}
    variants:
      logistic: {{role: champion, onnx: {MODELS}/logistic.onnx}}
      boosted: {{role: challenger, onnx: {MODELS}/boosted.onnx}}
    metrics:
      brier: {{type: bounded, bounds: [0, 1], direction: decrease, source: outcome, window: 1s}}
      errors: {{type: binary, direction: decrease, source: gateway}}
    experiment:
      id: boosted-vs-logistic
      objective: {{metric: brier, expected_effect: 0.02, min_effect: 0.01}}
      guardrails: [{{metric: errors, margin: 0.05}}]
      stages: [{{traffic: 10%, min_duration: 1h}}, {{traffic: 50%}}]
      automation: full
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def fixed_node(tmp_path: Path) -> Iterator[Node]:
    config = tmp_path / "gateway.yaml"
    config.write_text(HEAD + FIXED)
    with running(config, workers=2) as node:
        yield node


@pytest.fixture
def experiment_node(tmp_path: Path) -> Iterator[Node]:
    config = tmp_path / "gateway.yaml"
    config.write_text(HEAD + EXPERIMENT)
    with running(config, workers=2) as node:
        yield node
