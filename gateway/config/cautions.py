"""What a config may say but seldom means: reported as warnings, never refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.config.scalars import duration_text
from gateway.config.wording import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.config.document import Steps
    from gateway.config.schema import Config, Endpoint, Experiment

_EVERYWHERE = ("0.0.0.0", "::")
_TINY_MARGIN = 0.001  # of the metric's scale
_LONG = 7 * 86400.0  # seconds: such an experiment lives through a novelty effect and its end


def cautions(config: Config) -> Iterator[Finding]:
    if config.admin.listen.host in _EVERYWHERE:
        message = f"{config.admin.listen} lets everyone on the network steer the gateway: 127.0.0.1 is safer"
        yield Finding(("admin", "listen"), message)
    for name, endpoint in config.endpoints.items():
        steps = ("endpoints", name)
        if endpoint.experiment is not None:
            yield from _windows((*steps, "metrics"), endpoint, endpoint.experiment)
            yield from _stages((*steps, "experiment", "stages"), endpoint.experiment)
            yield from _margins((*steps, "experiment", "guardrails"), endpoint, endpoint.experiment)
            yield from _cycle((*steps, "experiment", "decision", "cycle"), endpoint.experiment)
        elif endpoint.covariates:
            yield Finding((*steps, "covariates"), "without an experiment there is nothing that they could make faster")


def _windows(steps: Steps, endpoint: Endpoint, experiment: Experiment) -> Iterator[Finding]:
    longest = experiment.decision.max_duration
    guardrails = (one.metric for one in experiment.guardrails)
    for name in (experiment.objective.metric, *guardrails, *experiment.signals):
        window = endpoint.timed(endpoint.metrics[name]).window or 0.0
        if window >= longest:
            message = f"no outcome is counted before max_duration ({duration_text(longest)}) ends all"
            yield Finding((*steps, name, "window"), f"{duration_text(window)}: {message}")


def _stages(steps: Steps, experiment: Experiment) -> Iterator[Finding]:
    decision = experiment.decision
    duration = sum(stage.min_duration for stage in experiment.stages)
    if duration >= decision.max_duration:
        found = f"{duration_text(duration)} in all, max_duration {duration_text(decision.max_duration)}"
        yield Finding(steps, f"the stages cannot be passed in time ({found}): no promotion is possible")
    units = sum(stage.min_units for stage in experiment.stages)
    if decision.max_units is not None and units > decision.max_units:
        found = f"{units} in all, max_units {decision.max_units}"
        yield Finding(steps, f"the stages need more units than come ({found}): no promotion is possible")


def _margins(steps: Steps, endpoint: Endpoint, experiment: Experiment) -> Iterator[Finding]:
    for index, guardrail in enumerate(experiment.guardrails):
        metric = endpoint.metrics[guardrail.metric]
        if guardrail.margin is not None and guardrail.margin < _TINY_MARGIN * metric.span:
            message = f"{guardrail.margin:g} is so small that millions of units are needed to show it kept"
            yield Finding((*steps, index, "margin"), message)
        errors = metric.source == "gateway" and metric.type == "binary"
        if guardrail.relative_margin is not None and errors and not guardrail.floor:
            message = "is never shown to be kept while the champion makes no errors: give it a floor, such as 0.005"
            yield Finding((*steps, index, "relative_margin"), message)


def _cycle(steps: Steps, experiment: Experiment) -> Iterator[Finding]:
    cycle, longest = experiment.decision.cycle, experiment.decision.max_duration
    if cycle >= longest:
        found = f"{duration_text(cycle)}, max_duration {duration_text(longest)}"
        yield Finding(steps, f"no whole cycle passes in time ({found}): no promotion is possible")
    elif not cycle and longest >= _LONG and not experiment.aa:
        yield Finding(steps, "a novelty effect of the first day can promote: cycle: 24h or 7d")
