"""What an experiment must be to the metrics and variants of its endpoint."""

from __future__ import annotations

import filecmp
import itertools
import math
from typing import TYPE_CHECKING

from gateway.config.metric_rules import WITHOUT_TENSORS, only
from gateway.config.scalars import percent_text, shown
from gateway.config.wording import Finding, closest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.config.document import Steps
    from gateway.config.draft import EndpointDraft, ExperimentDraft
    from gateway.config.schema import Guardrail, Metric, Objective, Variant

MAX_CHALLENGERS = 8
_RELATIVE = ("binary", "bounded", "count", "latency")
_LEAST = 1e-9  # of a scale: what is smaller cannot be told from nothing


def experiment_findings(draft: EndpointDraft) -> Iterator[Finding]:
    experiment = draft.experiment
    if experiment is None:
        return
    yield from _challengers(draft)
    yield from _objective(experiment, draft)
    yield from _guardrails(experiment, draft)
    yield from _signals(experiment, draft)
    yield from _stages(experiment, draft)
    yield from _segment_harm(experiment, draft)
    yield from _shadow(experiment, draft)
    yield from _aa(experiment, draft)


def _challengers(draft: EndpointDraft) -> Iterator[Finding]:
    challengers = draft.challengers
    if challengers is not None and not 1 <= len(challengers) <= MAX_CHALLENGERS:
        found = f"{len(challengers)} ({', '.join(challengers)})" if challengers else "none"
        message = f"expected from one to {MAX_CHALLENGERS} challengers, found {found}"
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
    elif objective.require == "min_effect" and not objective.min_effect:
        yield Finding((*steps, "require"), "expected a min_effect above 0 for require: min_effect, found none")
    elif objective.require == "min_effect" and objective.min_effect == objective.expected_effect:
        message = f"expected more than the min_effect that is required, found {objective.expected_effect:g}"
        yield Finding((*steps, "expected_effect"), message)
    metric = draft.metrics.get(objective.metric)
    if metric is not None and _has_scale(metric):
        yield from _effects(steps, objective, metric)


def _effects(steps: Steps, objective: Objective, metric: Metric) -> Iterator[Finding]:
    doubled = "expected_effect" not in objective.model_fields_set
    least = objective.min_effect or objective.expected_effect
    if objective.expected_effect >= metric.span:
        found = f"{objective.expected_effect:g}{', twice min_effect' if doubled else ''}"
        message = f"expected an effect below {metric.span:g} for type {metric.type}, found {found}"
        yield Finding((*steps, "min_effect" if doubled else "expected_effect"), message)
    elif least < _LEAST * metric.span:
        message = f"expected an effect of at least {_LEAST * metric.span:g} for type {metric.type}, found {least:g}"
        yield Finding((*steps, "min_effect" if objective.min_effect else "expected_effect"), message)


def _has_scale(metric: Metric) -> bool:
    """Whether the metric has what its scale is made of; if not, that is a finding already."""
    made_of = {"bounded": metric.bounds, "count": metric.cap}.get(metric.type, ())
    if metric.loss == "absolute_error":
        made_of = metric.bounds
    return made_of is not None and 0 < metric.span < math.inf


def _guardrails(experiment: ExperimentDraft, draft: EndpointDraft) -> Iterator[Finding]:
    seen: set[str] = set()
    for index, guardrail in enumerate(experiment.guardrails):
        if guardrail is None:
            continue
        inner = (*experiment.steps, "guardrails", index)
        steps = (*inner, "metric")
        yield from _declared(steps, guardrail.metric, draft)
        if guardrail.metric in seen:
            yield Finding(steps, f"expected each metric once, found {shown(guardrail.metric)} again")
        if experiment.objective and guardrail.metric == experiment.objective.metric:
            message = f"expected another metric than the objective, found {shown(guardrail.metric)}"
            yield Finding(steps, message)
        seen.add(guardrail.metric)
        yield from _margins(inner, guardrail, draft.metrics.get(guardrail.metric))


def _margins(steps: Steps, guardrail: Guardrail, metric: Metric | None) -> Iterator[Finding]:
    if (guardrail.margin is None) == (guardrail.relative_margin is None):
        found = "neither" if guardrail.margin is None else "both"
        yield Finding(steps, f"expected exactly one of margin and relative_margin, found {found}")
    elif guardrail.margin is not None and guardrail.floor:
        yield only(steps, "floor", "relative_margin", "margin")
    elif metric is not None and _has_scale(metric):
        yield from _absolute(steps, guardrail, metric) if guardrail.margin else _relative(steps, guardrail, metric)


def _absolute(steps: Steps, guardrail: Guardrail, metric: Metric) -> Iterator[Finding]:
    margin = guardrail.margin or 0.0
    if not _LEAST * metric.span <= margin < metric.span:
        message = f"expected a margin above 0 and below {metric.span:g} for type {metric.type}, found {margin:g}"
        yield Finding((*steps, "margin"), message)


def _relative(steps: Steps, guardrail: Guardrail, metric: Metric) -> Iterator[Finding]:
    margin, floor = guardrail.relative_margin, guardrail.floor
    assert margin is not None
    if metric.type not in _RELATIVE:
        words = f"{', '.join(_RELATIVE[:-1])} or {_RELATIVE[-1]}"
        message = f"expected margin for type {metric.type}, found relative_margin, which is for type {words}"
        yield Finding((*steps, "relative_margin"), message, at_key=True)
        return
    if metric.extent[0]:
        message = f"expected margin for bounds that do not begin at 0, found relative_margin for [{metric.extent[0]:g},"
        yield Finding((*steps, "relative_margin"), f"{message} {metric.extent[1]:g}]", at_key=True)
    if metric.direction == "increase" and margin >= 1:
        message = f"expected less than 100% for direction increase, found {percent_text(margin)}"
        yield Finding((*steps, "relative_margin"), message)
    if floor and metric.type == "latency":
        yield Finding((*steps, "floor"), "expected no floor for type latency, found one", at_key=True)
    elif floor >= metric.span:
        message = f"expected a floor below {metric.span:g} for type {metric.type}, found {floor:g}"
        yield Finding((*steps, "floor"), message)


def _signals(experiment: ExperimentDraft, draft: EndpointDraft) -> Iterator[Finding]:
    roles = {one.metric: "a guardrail" for one in experiment.guardrails if one is not None}
    if experiment.objective is not None:
        roles[experiment.objective.metric] = "the objective"
    for index, name in enumerate(experiment.signals):
        if not isinstance(name, str):
            continue
        steps = (*experiment.steps, "signals", index)
        yield from _declared(steps, name, draft)
        if name in experiment.signals[:index]:
            yield Finding(steps, f"expected each metric once, found {shown(name)} again")
        if name in roles:
            yield Finding(steps, f"expected neither objective nor guardrail, found {shown(name)}, {roles[name]}")


def _declared(steps: Steps, name: str, draft: EndpointDraft) -> Iterator[Finding]:
    if name not in draft.metrics:
        hint = closest(name, draft.metrics) or ": the endpoint has no metrics"
        yield Finding(steps, f"expected a metric of this endpoint, found {shown(name)}{hint}")


def _stages(experiment: ExperimentDraft, draft: EndpointDraft) -> Iterator[Finding]:
    names: set[str] = set()
    before = None
    challengers = len(draft.challengers or ())
    for index, stage in enumerate(experiment.stages):
        if stage is None:
            continue
        steps = (*experiment.steps, "stages", index)
        if before is not None and stage.traffic <= before:
            message = f"expected more than {percent_text(before)} of the stage before, found"
            yield Finding((*steps, "traffic"), f"{message} {percent_text(stage.traffic)}")
        if stage.traffic * challengers >= 1 and challengers <= MAX_CHALLENGERS:
            each, total = percent_text(stage.traffic), percent_text(stage.traffic * challengers)
            message = f"expected less than 100% for all challengers together, found {total}: {each} for each"
            yield Finding((*steps, "traffic"), f"{message} of {challengers}")
        if stage.name in names:
            yield Finding((*steps, "name"), f"expected each name once, found {shown(stage.name)} again")
        names.add(stage.name)
        before = stage.traffic


def _segment_harm(experiment: ExperimentDraft, draft: EndpointDraft) -> Iterator[Finding]:
    if experiment.segment_harm == "restrict" and not draft.segments:
        message = "expected segments of the endpoint for segment_harm: restrict, found none"
        yield Finding((*experiment.steps, "decision", "segment_harm"), message)


def _shadow(experiment: ExperimentDraft, draft: EndpointDraft) -> Iterator[Finding]:
    """Nobody has seen a shadow's answer: only a label that does not depend on answers can judge it."""
    if experiment.shadow is None:
        return
    steps = (*experiment.steps, "shadow")
    if draft.protocol in WITHOUT_TENSORS:
        found = f"found with protocol: {draft.protocol}"
        yield Finding(steps, f"expected only with protocol: oip, {found}", at_key=True)
    metric = draft.metrics.get(experiment.objective.metric) if experiment.objective else None
    if metric is not None and not (metric.type == "score" and metric.label_independent):
        found = "label_independent: false" if metric.type == "score" else f"type {metric.type}"
        wanted = "an objective of type score with label_independent: true"
        yield Finding(steps, f"expected only with {wanted}, found with {found}", at_key=True)


def _aa(experiment: ExperimentDraft, draft: EndpointDraft) -> Iterator[Finding]:
    if experiment.aa is not True:
        return
    variants = list(draft.variants.items())
    for (first, one), (name, other) in itertools.pairwise(variants):
        if one is not None and other is not None and (key := _difference(one, other)):
            message = f"expected the same model for every variant, found another {key} for {name} than for {first}"
            yield Finding((*experiment.steps, "aa"), message)
            return


def _difference(one: Variant, other: Variant) -> str:
    """The key by which two variants are not the same model, or ""."""
    if one.onnx is None or other.onnx is None:
        keys = ("onnx", "url", "model", "headers")
        return next((key for key in keys if getattr(one, key) != getattr(other, key)), "")
    try:
        same = one.onnx == other.onnx or filecmp.cmp(one.onnx, other.onnx, shallow=False)
    except OSError:
        return ""  # what cannot be read has a finding of its own
    return "" if same else "onnx"
