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
  max_connections: 1000
  max_requests: 256
  trusted_proxies:
    - 10.0.0.0/8
    - "::1"
    - unix
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
        cycle: 24h
        on_inconclusive: champion
      automation: full
"""

RICH = """\
version: 1
endpoints:
  shop:
    protocol: http
    segments:
      country:
        from: header:x-country
        values: [DE, FR]
    covariates:
      past-spend:
        from: header:X-Past-Spend
        bounds: [0, 500]
      age:
        from: header:x-age
        bounds: [18, 99]
    variants:
      third:
        role: challenger
        url: http://shop-c:8000
        timeout: 3s
      old:
        role: champion
        url: http://shop-a:8000
        timeout: 2s
      new:
        role: challenger
        url: http://shop-b:8000
        timeout: 4s
    metrics:
      revenue:
        type: unbounded
        scale: winsorised
        aggregate: sum
        missing: zero
        direction: increase
        source: outcome
        window: 24h
        grace: 1h
      orders:
        type: count
        cap: 5
        direction: increase
        source: outcome
        window: 12h
        grace: 30m
      items:
        type: count
        cap: 50
        aggregate: max
        missing: exclude
        max_missing: 10%
        direction: increase
        source: outcome
        window: 12h
        grace: 30m
      basket:
        type: ratio
        numerator: items
        denominator: orders
        direction: increase
        source: outcome
      stars:
        type: bounded
        bounds: [0, 5]
        aggregate: max
        direction: increase
        source: outcome
        window: 1h
      returned:
        type: binary
        aggregate: first
        direction: decrease
        source: outcome
        window: 7d
      latency:
        type: latency
        limit: 1s
        direction: decrease
        source: gateway
      errors:
        type: binary
        direction: decrease
        source: gateway
    experiment:
      id: personal
      objective:
        metric: revenue
        expected_effect: 0.02
        min_effect: 0.005
        require: min_effect
      guardrails:
        - {metric: errors, relative_margin: 20%, floor: 0.002}
        - {metric: latency, relative_margin: 150%}
        - {metric: stars, margin: 0.5}
        - {metric: orders, relative_margin: 2.5%}
      signals:
        - basket
        - returned
      stages:
        - {traffic: 5%}
        - {traffic: 49%}
      holdback:
        traffic: 2%
        watch: 30d
        run_length: 1000
      decision:
        cycle: 24h
        segment_harm: restrict
        max_duration: 60d
  flights:
    protocol: oip
    variants:
      a:
        role: champion
        onnx: models/logistic.onnx
      b:
        role: challenger
        onnx: models/boosted.onnx
    metrics:
      loss:
        type: score
        loss: log_loss
        label_independent: true
        prediction: probability[1]
        direction: decrease
        source: outcome
        window: 6h
      minutes:
        type: score
        loss: absolute_error
        bounds: [-60, 600]
        prediction: probability[1]
        direction: decrease
        source: outcome
        window: 6h
    experiment:
      id: trial
      objective:
        metric: loss
        expected_effect: 0.1
      guardrails:
        - {metric: minutes, margin: 100}
      shadow: 12.5%
      aa: true
      stages:
        - {traffic: 50%}
"""


@pytest.fixture
def valid() -> str:
    return VALID


@pytest.fixture
def rich() -> str:
    """Metrics of every type, roles, several challengers, shadow, holdback: what statistics can be asked for."""
    return RICH


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


@pytest.fixture(autouse=True)
def secrets_of_the_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """What config/cluster.yaml takes from the environment."""
    monkeypatch.setenv("GATEWAY_SIGNING_KEY", "ab" * 32)
    monkeypatch.setenv("GATEWAY_PEPPER", "cd" * 32)
    monkeypatch.setenv("GATEWAY_DB_PASSWORD", "secret")
