"""What a forecast is about: one experiment of a config, compiled as the controller compiles it.

No model file is read: a plan must be possible before there is a challenger.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple

from msgspec.structs import replace

from gateway.config.scalars import percent_text
from gateway.config.schema import Config, Variant
from gateway.errors import GatewayError
from gateway.evidence.definition import Definition, MetricDefinition
from gateway.evidence.report import Thresholds
from gateway.release import compile as compiled
from gateway.release.artifacts import Artifacts
from gateway.release.state import StageRule
from gateway.release.view import Rules


class AssumptionError(GatewayError):
    """Something that was asked for makes no sense for this experiment; the person at the terminal mends it."""

    reason = "assumption"


class Subject(NamedTuple):
    """One experiment, as the statistics and the policy see it."""

    definition: Definition
    rules: Rules
    thresholds: Thresholds
    shadow: float  # share of units that every variant sees a copy of; 0 for none

    @property
    def objective(self) -> MetricDefinition:
        return self.definition.metric(self.definition.objective)

    @property
    def judged(self) -> tuple[MetricDefinition, ...]:
        """The metrics that have a say: the objective, guardrails and signals."""
        return tuple(m for m in self.definition.metrics if m == self.objective or m.guards or m.signal)

    def with_ramp(self, shares: tuple[Decimal, ...]) -> Subject:
        """Other shares; each stage keeps the minimums of the config's stage at its place, or of the last one."""
        known = self.rules.stages
        stages = tuple(
            replace(known[min(place, len(known) - 1)], name=f"traffic-{percent_text(share)}", share=share)
            for place, share in enumerate(shares)
        )
        return self.with_stages(stages)

    def with_stages(self, stages: tuple[StageRule, ...]) -> Subject:
        rivals = len(self.definition.challengers)
        shares = [stage.share for stage in stages]
        if sorted(set(shares)) != shares or shares[0] <= 0 or rivals * shares[-1] >= 1:
            most = f" / {rivals}" if rivals > 1 else ""
            raise AssumptionError(f"the shares of a ramp must rise and lie between 0 % and 100 %{most}")
        return self._replace(rules=replace(self.rules, stages=stages))


class _NoFiles(Artifacts):
    """Forecasts do not depend on what is in a model file."""

    def digest(self, variant: Variant) -> str:
        return ""


def subject(config: Config, name: str | None) -> Subject:
    """The experiment of an endpoint, or the only one of the config. Raises AssumptionError if there is none."""
    running = {key: endpoint for key, endpoint in config.endpoints.items() if endpoint.experiment is not None}
    key = name or _only(running)
    if key not in running:
        raise AssumptionError(f"there is no experiment at {key!r}; experiments are at {_listed(running)}")
    endpoint = running[key]
    assert endpoint.experiment is not None
    return Subject(
        definition=compiled.definition(key, endpoint, endpoint.champion, _NoFiles()),
        rules=compiled.rules(endpoint),
        thresholds=compiled.thresholds(endpoint),
        shadow=float(endpoint.experiment.shadow or 0),
    )


def _only(running: Mapping[str, object]) -> str:
    if not running:
        raise AssumptionError("no endpoint of this config has an experiment")
    if len(running) > 1:
        raise AssumptionError(f"several endpoints have an experiment, name one with --endpoint: {_listed(running)}")
    return next(iter(running))


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(names) or "none"
