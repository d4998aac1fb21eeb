"""A folder with a config that is right in every key, and ways to get it wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.config.load import LoadedConfig, parse
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

VALID = """\
version: 1
data:
  listen: 0.0.0.0:8080
  workers: 4
  max_body: 16MiB
admin: {listen: 127.0.0.1:8081}
metrics: {listen: 127.0.0.1:9090}
data_dir: var/gateway
store: sqlite:///var/other/gateway.db
endpoints:
  search-rank:
    protocol: http
    unit: {from: "header:X-User-Id", otherwise: request}
    segments:
      origin:
        from: header:x-origin
        values: [EWR, JFK, LGA]
    variants:
      a:
        role: champion
        url: http://rank-a:8000
      b:
        role: challenger
        url: http://rank-b:8000
        timeout: 500ms
        idempotent: true
    traffic:
      a: 80%
      b: 20%
  flight-delay:
    protocol: oip
    variants:
      logistic:
        role: champion
        onnx: models/logistic.onnx
      boosted:
        role: challenger
        onnx: models/boosted.onnx
    metrics:
      brier:
        type: bounded
        bounds: [0, 1]
        direction: decrease
        source: outcome
        window: 1h
        missing: exclude
        max_missing: 5%
        grace: 0s
      late:
        type: binary
        direction: increase
        source: outcome
        window: 1h
        missing: zero
      latency:
        type: latency
        limit: 250ms
        direction: decrease
        source: gateway
      errors:
        type: binary
        direction: decrease
        source: gateway
    experiment:
      id: boosted-vs-logistic
      objective:
        metric: brier
        expected_effect: 0.02
        min_effect: 0.01
      guardrails:
        - {metric: errors, margin: 0.005}
        - {metric: latency, margin: 0.02}
      stages:
        - {traffic: 1%, min_duration: 1h, min_units: 1000, min_challenger_units: 50}
        - {traffic: 10%}
        - {traffic: 50%}
      decision:
        alpha: 0.01
        futility: last_stage
        hold_at: 5
        max_units: 16000
        max_duration: 30d
        on_inconclusive: champion
      automation: full
"""


@pytest.fixture
def valid() -> str:
    return VALID


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the config will be, beside the model files that it names."""
    models = tmp_path / "models"
    models.mkdir()
    for name in ("logistic.onnx", "boosted.onnx"):
        (models / name).write_bytes(b"onnx")
    return tmp_path / "gateway.yaml"


@pytest.fixture
def accepted(path: Path) -> Callable[[str], LoadedConfig]:
    """Parse a text that must be right."""
    return lambda text: parse(text.encode(), path)


@pytest.fixture
def problems(path: Path) -> Callable[[str | bytes], list[str]]:
    """Parse a text and give what is wrong with it, as `line: key: message`."""

    def refuse(text: str | bytes) -> list[str]:
        try:
            parse(text if isinstance(text, bytes) else text.encode(), path)
        except ConfigError as error:
            found = error.problems
        else:
            return []
        assert all(problem.file == str(path) for problem in found)
        return [str(problem).removeprefix(f"{path}:").strip() for problem in found]

    return refuse
