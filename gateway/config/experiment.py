"""The part of the config that says what is measured and how a challenger is judged and released."""

# No postponed annotations here: pydantic evaluates them.
from typing import Annotated, Any, Literal

from pydantic import Field

from gateway.config import kinds
from gateway.config.kinds import Section
from gateway.config.scalars import percent_text


def _default_missing(data: dict[str, Any]) -> str | None:
    if data["source"] == "gateway":
        return None
    return "zero" if data["type"] == "binary" else "exclude"


def _default_max_missing(data: dict[str, Any]) -> str | None:
    return "5%" if data["missing"] == "exclude" else None


def _default_grace(data: dict[str, Any]) -> str | None:
    return "0s" if data["source"] == "outcome" else None


class Metric(Section):
    """A number for every unit, by which variants are compared."""

    type: Literal["binary", "bounded", "latency"]
    """binary: 0 or 1. bounded: a number within `bounds`. latency: 1 if an answer took longer than `limit`."""
    source: Literal["gateway", "outcome"]
    """outcome: posted by clients later. gateway: known to it, namely type latency and the binary `errors`."""
    direction: Literal["increase", "decrease"]
    """What is better: an increase or a decrease."""
    bounds: Annotated[tuple[float, float], Field(strict=False)] | None = None
    """For type bounded: the least and the greatest value; outcomes outside are rejected."""
    limit: kinds.Period | None = None
    """For type latency: the time that an answer should not exceed, such as 250ms."""
    window: kinds.Period | None = None
    """For source outcome: how long after the request an outcome still counts, such as 6h."""
    missing: Literal["exclude", "zero"] | None = Field(default_factory=_default_missing, validate_default=True)
    """What a unit without outcome is: left out (default of bounded), or 0 (default of binary, only there)."""
    max_missing: kinds.Percent | None = Field(default_factory=_default_max_missing, validate_default=True)
    """With missing: exclude, the share of units without outcome above which nothing is promoted; or 5%."""
    grace: kinds.Duration | None = Field(default_factory=_default_grace, validate_default=True)
    """For source outcome: how long to wait for stragglers when the window has passed; or 0s."""


def _default_effect(data: dict[str, Any]) -> float:
    return 2.0 * float(data["min_effect"])


class Objective(Section):
    """What the challenger must improve to be promoted."""

    metric: kinds.Name
    """One of the endpoint's metrics."""
    min_effect: kinds.Effect = 0.0
    """The smallest improvement worth having, in the metric's own unit; serves planning and futility."""
    expected_effect: kinds.Effect = Field(default_factory=_default_effect, validate_default=True)
    """The improvement that is hoped for; the test is fastest there. By default twice min_effect."""


class Guardrail(Section):
    """What the challenger must not harm."""

    metric: kinds.Name
    """One of the endpoint's metrics, not the objective."""
    margin: kinds.Margin
    """The harm that is still accepted, as an absolute difference between 0 and 1."""


def _default_stage_name(data: dict[str, Any]) -> str:
    return f"traffic-{percent_text(data['traffic'])}"


class Stage(Section):
    """One step of the release: a share of traffic, and what must have passed before the next."""

    traffic: kinds.StageShare
    """The challenger's share, above 0% and below 100%; each stage has more than the one before."""
    name: kinds.StageName = Field(default_factory=_default_stage_name, validate_default=True)
    """By default traffic-<share>, such as traffic-1%."""
    min_duration: kinds.Duration = Field("0s", validate_default=True)
    """Time to stay at least."""
    min_units: kinds.Count = 0
    """Units to see at least, of both variants together."""
    min_challenger_units: kinds.Count = 50
    """Units to see at least on the challenger."""


class Decision(Section):
    """When the evidence is enough."""

    alpha: kinds.Alpha = 0.01
    """Probability of promoting a challenger that is no better."""
    alpha_rollback: kinds.Alpha = 0.01
    """Probability of rolling back a harmless challenger, for the objective."""
    alpha_errors: kinds.Alpha = 0.001
    """The same for errors."""
    alpha_guardrail: kinds.Alpha = 0.05
    """Probability of promoting a challenger that is exactly a guardrail's margin worse."""
    alpha_srm: kinds.Alpha = 0.001
    """Probability of calling a healthy split wrong (sample ratio mismatch)."""
    futility: Literal["last_stage", "off"] = "last_stage"
    """last_stage: stop there when the hoped-for effect has become implausible."""
    hold_at: Annotated[float, Field(gt=1)] = 5.0
    """Evidence of harm, as an e-value, at which the release stops advancing."""
    max_units: Annotated[int, Field(ge=1)] | None = None
    """Units after which the experiment ends as inconclusive; without it only time ends it."""
    max_duration: kinds.Period = Field("30d", validate_default=True)
    """Time after which the experiment ends as inconclusive."""
    on_inconclusive: Literal["champion", "hold"] = "champion"
    """champion: all traffic goes back to it. hold: the split stays until a person decides."""


class Experiment(Section):
    """A release by evidence: the stages own the split."""

    id: kinds.Name
    """Names this run for ever. A new id starts a new randomisation and new evidence."""
    objective: Objective
    guardrails: Annotated[tuple[Guardrail, ...], Field(strict=False)] = ()
    """Metrics that must not get worse by more than a margin."""
    stages: Annotated[tuple[Stage, ...], Field(strict=False, min_length=1)]
    """The way to promotion, in order of traffic."""
    decision: Decision = Field({}, validate_default=True)
    automation: Literal["off", "recommend", "rollback_only", "full"] = "full"
    """off: count. recommend: advise. rollback_only: act on harm alone. full: also advance and promote."""
