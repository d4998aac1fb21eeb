"""The part of the config that says how challengers are judged and released."""

# No postponed annotations here: pydantic evaluates them.
from typing import Annotated, Any, Literal

from pydantic import Field

from gateway.config import kinds
from gateway.config.kinds import Section
from gateway.config.scalars import percent_text


def _default_effect(data: dict[str, Any]) -> float:
    return 2.0 * float(data["min_effect"])


class Objective(Section):
    """What a challenger must improve to be promoted. Effects are in the metric's own unit; those of an unbounded or
    ratio metric are in units of its score between 0 and 1, those of a score metric in units of its loss."""

    metric: kinds.Name
    """One of the endpoint's metrics."""
    min_effect: kinds.Effect = 0.0
    """The smallest improvement worth having; serves planning and futility. For an unbounded or ratio metric in units
    of its score between 0 and 1."""
    expected_effect: kinds.Effect = Field(default_factory=_default_effect, validate_default=True)
    """The improvement that is hoped for; the test is fastest there. By default twice min_effect. For an unbounded or
    ratio metric in units of its score between 0 and 1."""
    require: Literal["improvement", "min_effect"] = "improvement"
    """What must be proved for promotion. improvement: any at all. min_effect: more than min_effect."""


class Guardrail(Section):
    """What a challenger must not harm: a metric, and exactly one of `margin` and `relative_margin`."""

    metric: kinds.Name
    """One of the endpoint's metrics, not the objective."""
    margin: kinds.Positive | None = None
    """The harm that is still accepted, as a difference in the metric's own unit. For errors and latency a share, such
    as 0.005; for an unbounded or ratio metric in units of its score between 0 and 1; for a score in units of its loss.
    """
    relative_margin: kinds.Relative | None = None
    """The harm that is still accepted, as a part of the champion's value, such as 2%. For types binary, bounded (from
    0) and count; for type latency that of its quantiles p50, p90 and p99, whatever the limit."""
    floor: kinds.Effect = 0.0
    """With relative_margin, the least difference that is accepted, in the metric's own unit: a part of a value near 0
    cannot be shown to be kept. Not for latency."""


def _default_stage_name(data: dict[str, Any]) -> str:
    return f"traffic-{percent_text(data['traffic'])}"


class Stage(Section):
    """One step of the release: a share of traffic, and what must have passed before the next."""

    traffic: kinds.StageShare
    """The share of each challenger, above 0%; together they stay below 100%. Each stage has more than the one before.
    """
    name: kinds.StageName = Field(default_factory=_default_stage_name, validate_default=True)
    """By default traffic-<share>, such as traffic-1%. `watch` is what follows a promotion with a holdback."""
    min_duration: kinds.Duration = Field("0s", validate_default=True)
    """Time to stay at least."""
    min_units: kinds.Count = 0
    """Units to see at least, of all variants together."""
    min_challenger_units: kinds.Count = 50
    """Units to see at least on each challenger."""


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
    cycle: kinds.Duration = Field("0s", validate_default=True)
    """A business cycle such as 24h or 7d: units of at least one whole cycle must have matured before promotion. 0s
    for none."""
    segment_harm: Literal["veto", "restrict", "rollback"] = "veto"
    """What harm in one segment does. veto: no promotion. restrict: that segment stays with the champion, the rest may
    be promoted. rollback: the challenger goes."""


class Holdback(Section):
    """Units that stay with the old champion after a promotion, to watch the new one."""

    traffic: kinds.StageShare
    """Their share, such as 2%."""
    watch: kinds.Period = Field("30d", validate_default=True)
    """How long they stay."""
    run_length: Annotated[int, Field(ge=2)] = 1_000_000
    """Units between two false alarms of the watch, on average, at least."""


class Experiment(Section):
    """A release by evidence: the stages own the split."""

    id: kinds.Name
    """Names this run for ever. A new id starts a new randomisation and new evidence."""
    objective: Objective
    guardrails: Annotated[tuple[Guardrail, ...], Field(strict=False)] = ()
    """Metrics that must not get worse by more than a margin."""
    signals: Annotated[tuple[kinds.Name, ...], Field(strict=False)] = ()
    """Metrics whose harm holds the release, no more; neither objective nor guardrail."""
    stages: Annotated[tuple[Stage, ...], Field(strict=False, min_length=1)]
    """The way to promotion, in order of traffic."""
    decision: Decision = Field({}, validate_default=True)
    shadow: kinds.Sample | None = None
    """A sample of units, such as 10%: every variant sees a copy of their requests, and the objective is decided by
    pairs of predictions. For an objective of type score with label_independent: true, and protocol oip."""
    holdback: Holdback | None = None
    """After a promotion some units stay with the old champion, and the new one is watched; by default none."""
    aa: bool = False
    """true for a trial of the machinery itself: all variants are the same model, in a file or, with the same headers,
    at the same url, and nothing is promoted."""
    automation: Literal["off", "recommend", "rollback_only", "full"] = "full"
    """off: count. recommend: advise. rollback_only: act on harm alone. full: also advance and promote."""
