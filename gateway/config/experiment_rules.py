"""What metrics and an experiment must be to one another and to their endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.config.scalars import percent_text, shown
from gateway.config.wording import Finding, closest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.config.document import Steps
    from gateway.config.draft import EndpointDraft, ExperimentDraft
    from gateway.config.schema import Metric


def metric_findings(draft: EndpointDraft) -> Iterator[Finding]:
    for name, metric in draft.metrics.items():
        if metric is not None:
            steps = (*draft.steps, "metrics", name)
            yield from _type(steps, metric)
            own = metric.source == "gateway"
            yield from _gateway(steps, name, metric) if own else _outcome(steps, metric)


def experiment_findings(draft: EndpointDraft) -> Iterator[Finding]:
    if draft.experiment is None:
        return
    yield from _challengers(draft)
    yield from _objective(draft.experiment, draft)
    yield from _guardrails(draft.experiment, draft)
    yield from _stages(draft.experiment)


def _type(steps: Steps, metric: Metric) -> Iterator[Finding]:
    if metric.type == "bounded" and metric.bounds is None:
        yield Finding(steps, "expected bounds for type bounded, such as bounds: [0, 1], found none")
    elif metric.bounds is not None and metric.type != "bounded":
        yield _only(steps, "bounds", "type bounded", f"type {metric.type}")
    elif metric.bounds is not None and metric.bounds[0] >= metric.bounds[1]:
        low, high = metric.bounds
        yield Finding((*steps, "bounds"), f"expected bounds from low to high, found [{low:g}, {high:g}]")
    if metric.type == "latency" and metric.limit is None:
        yield Finding(steps, "expected a limit for type latency, such as limit: 250ms, found none")
    elif metric.type != "latency" and metric.limit is not None:
        yield _only(steps, "limit", "type latency", f"type {metric.type}")


def _gateway(steps: Steps, name: str, metric: Metric) -> Iterator[Finding]:
    if metric.type == "bounded" or (metric.type == "binary" and name != "errors"):
        message = (
            "expected outcome, found gateway: of itself the gateway knows metrics of type latency, and one of"
            f" type binary by the name errors; this is {metric.type} by the name {name}"
        )
        yield Finding((*steps, "source"), message)
        return
    if metric.direction != "decrease":
        message = f"expected decrease for {metric.type if metric.type == 'latency' else name}, found increase"
        yield Finding((*steps, "direction"), message)
    for key in ("window", "missing", "max_missing", "grace"):
        if key in metric.model_fields_set:
            yield _only(steps, key, "source outcome", "source gateway")


def _outcome(steps: Steps, metric: Metric) -> Iterator[Finding]:
    if metric.type == "latency":
        yield Finding((*steps, "source"), "expected gateway for type latency, found outcome")
        return
    if metric.window is None:
        yield Finding(steps, "expected a window for source outcome, such as window: 1h, found none")
    if metric.missing == "zero" and metric.type != "binary":
        yield Finding((*steps, "missing"), f"expected exclude for type {metric.type}, found zero")
    elif metric.missing == "zero" and "max_missing" in metric.model_fields_set:
        yield _only(steps, "max_missing", "missing: exclude", "missing: zero")


def _only(steps: Steps, key: str, wanted: str, found: str) -> Finding:
    return Finding((*steps, key), f"expected only with {wanted}, found with {found}", at_key=True)


def _challengers(draft: EndpointDraft) -> Iterator[Finding]:
    challengers = [name for name, role in draft.roles.items() if role == "challenger"]
    if len(challengers) != 1 and set(draft.roles.values()) <= {"champion", "challenger"} and draft.roles:
        found = f"{len(challengers)} ({', '.join(challengers)})" if challengers else "none"
        message = f"expected exactly one challenger (this version compares two variants), found {found}"
        yield Finding((*draft.steps, "experiment"), message)


def _objective(experiment: ExperimentDraft, draft: EndpointDraft) -> Iterator[Finding]:
    objective = experiment.objective
    if objective is None:
        return
    steps = (*experiment.steps, "objective")
    yield from _declared((*steps, "metric"), objective.metric, draft)
    if not objective.expected_effect:
        yield Finding(steps, "expected expected_effect or min_effect above 0, found neither")
        return
    if objective.min_effect > objective.expected_effect:
        found = f"{objective.min_effect:g} above expected_effect {objective.expected_effect:g}"
        yield Finding((*steps, "min_effect"), f"expected at most expected_effect, found {found}")
    metric = draft.metrics.get(objective.metric)
    low, high = (metric.bounds or (0.0, 1.0)) if metric else (0.0, float("inf"))
    if low < high and objective.expected_effect > high - low:
        key = "expected_effect" if "expected_effect" in objective.model_fields_set else "min_effect"
        message = f"expected an effect within [{low:g}, {high:g}], found {objective.expected_effect:g}"
        yield Finding((*steps, key), message)


def _guardrails(experiment: ExperimentDraft, draft: EndpointDraft) -> Iterator[Finding]:
    seen: set[str] = set()
    for index, guardrail in enumerate(experiment.guardrails):
        if guardrail is None:
            continue
        steps = (*experiment.steps, "guardrails", index, "metric")
        yield from _declared(steps, guardrail.metric, draft)
        if guardrail.metric in seen:
            yield Finding(steps, f"expected each metric once, found {shown(guardrail.metric)} again")
        if experiment.objective and guardrail.metric == experiment.objective.metric:
            message = f"expected another metric than the objective, found {shown(guardrail.metric)}"
            yield Finding(steps, message)
        seen.add(guardrail.metric)


def _declared(steps: Steps, name: str, draft: EndpointDraft) -> Iterator[Finding]:
    if name not in draft.metrics:
        hint = closest(name, draft.metrics) or ": the endpoint has no metrics"
        yield Finding(steps, f"expected a metric of this endpoint, found {shown(name)}{hint}")


def _stages(experiment: ExperimentDraft) -> Iterator[Finding]:
    names: set[str] = set()
    before = None
    for index, stage in enumerate(experiment.stages):
        if stage is None:
            continue
        steps = (*experiment.steps, "stages", index)
        if before is not None and stage.traffic <= before:
            message = f"expected more than {percent_text(before)} of the stage before, found"
            yield Finding((*steps, "traffic"), f"{message} {percent_text(stage.traffic)}")
        if stage.name in names:
            yield Finding((*steps, "name"), f"expected each name once, found {shown(stage.name)} again")
        names.add(stage.name)
        before = stage.traffic
