"""Small experiments to forecast: built by hand, or as a config of three metrics and two stages."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from gateway.config.load import load
from gateway.evidence.definition import Definition, MetricDefinition
from gateway.evidence.report import Thresholds
from gateway.forecast.subject import Subject, subject
from gateway.release.state import StageRule
from gateway.release.view import Rules

CONVERSION = MetricDefinition(name="conversion", type="binary", source="outcome", increase=True, missing="zero")
BRIER = MetricDefinition(name="brier", type="bounded", source="outcome", increase=False)
RAMP = ((0.05, 2000), (0.2, 2000), (0.5, 0))  # share, min_units
EVER_US = 10**15

CONFIG = """\
version: 1
endpoints:
  rank:
    protocol: http
    unit: {from: "header:x-user-id", otherwise: request}
    segments: {origin: {from: "header:x-origin", values: [EWR, JFK]}}
    variants:
      a: {role: champion, url: "http://127.0.0.1:9001"}
      b: {role: challenger, url: "http://127.0.0.1:9002"}
    metrics:
      brier: {type: bounded, bounds: [0, 1], direction: decrease, source: outcome, window: 1m}
      errors: {type: binary, direction: decrease, source: gateway}
      latency: {type: latency, limit: 250ms, direction: decrease, source: gateway}
    experiment:
      id: exp
      objective: {metric: brier, expected_effect: 0.1, min_effect: 0.05}
      guardrails: [{metric: errors, margin: 0.05}, {metric: latency, margin: 0.05}]
      stages:
        - {traffic: 10%, min_duration: 1h, min_units: 500, min_challenger_units: 20}
        - {traffic: 50%, min_units: 200, min_challenger_units: 50}
      decision: {alpha: 0.05, max_duration: 10d}
"""


def by_hand(objective: MetricDefinition, effect: float, *guardrails: MetricDefinition, futile: float = 0.0) -> Subject:
    """One challenger on a ramp that waits for units only; ``futile`` is min_effect, and 0 for no futility."""
    definition = Definition(
        id="exp",
        endpoint="rank",
        champion="a",
        challengers=("b",),
        metrics=(objective, *guardrails),
        objective=objective.name,
        expected_effect=effect,
        min_effect=futile,
        segments=(),
        segment_values=(),
        answer_within_us=1,
    )
    stages = tuple(
        StageRule(name=f"s{n}", share=Decimal(str(share)), min_duration_us=0, min_units=units, min_challenger_units=0)
        for n, (share, units) in enumerate(RAMP)
    )
    rules = Rules(
        stages=stages,
        automation="full",
        hold_at=1e9,
        futility=futile > 0.0,
        max_units=None,
        max_duration_us=EVER_US,
        on_inconclusive="champion",
    )
    limits = Thresholds(alpha=0.01, alpha_rollback=0.01, alpha_errors=0.001, alpha_guardrail=0.05, alpha_srm=0.001)
    return Subject(definition, rules, limits, 0.0)


def written(folder: Path, text: str = CONFIG) -> Path:
    path = folder / "gateway.yaml"
    path.write_text(text)
    return path


def configured(folder: Path, text: str = CONFIG) -> Subject:
    return subject(load(written(folder, text)).config, None)
