"""What metrics must be by their type and source, to one another and to their endpoint."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gateway.config.metric import MISSING_IS_ZERO, POSTED
from gateway.config.places import Prediction, Reading
from gateway.config.scalars import duration_text, shown
from gateway.config.wording import Finding, closest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.config.document import Steps
    from gateway.config.draft import EndpointDraft
    from gateway.config.schema import Metric

_TYPES_OF = {  # which types may have a key
    "bounds": ("bounded", "score"),
    "limit": ("latency",),
    "cap": ("count",),
    "scale": ("unbounded",),
    "numerator": ("ratio",),
    "denominator": ("ratio",),
    "loss": ("score",),
    "label_independent": ("score",),
    "prediction": ("score",),
}
_NEEDS = {  # what a type must have, and an example
    "bounded": (("bounds", "bounds", "[0, 1]"),),
    "latency": (("limit", "a limit", "250ms"),),
    "count": (("cap", "a cap", "20"),),
    "ratio": (("numerator", "a numerator", "clicks"), ("denominator", "a denominator", "views")),
}
_OUTCOMES_ALONE = ("window", "aggregate", "missing", "max_missing", "grace")
_COUNTS_HAVE = ("window", "grace")  # and their ratio does not
_TOTALS = ("sum", "count")
WITHOUT_TENSORS = ("http", "openai")  # protocols whose answers hold no prediction that could be scored
_POSTED_WORDS = f"{', '.join(POSTED[:-1])} or {POSTED[-1]}"


def metric_findings(draft: EndpointDraft) -> Iterator[Finding]:
    for name, metric in draft.metrics.items():
        if metric is None:
            continue
        steps = (*draft.steps, "metrics", name)
        yield from _type(steps, metric)
        yield from _bounds(steps, metric)
        yield from _from(steps, metric, draft)
        if metric.source == "gateway":
            yield from _gateway(steps, name, metric)
        else:
            yield from _outcome(steps, metric)
        yield from _ratio(steps, metric, draft)
        yield from _score(steps, metric, draft)
    yield from _predictions(draft)


def _type(steps: Steps, metric: Metric) -> Iterator[Finding]:
    for key, types in _TYPES_OF.items():
        if getattr(metric, key) is not None and metric.type not in types:
            yield only(steps, key, f"type {types[0]}", f"type {metric.type}")
    for key, words, example in _NEEDS.get(metric.type, ()):
        if getattr(metric, key) is None:
            message = f"expected {words} for type {metric.type}, such as {key}: {example}, found none"
            yield Finding(steps, message)


def _bounds(steps: Steps, metric: Metric) -> Iterator[Finding]:
    if metric.bounds is not None:
        yield from ordered((*steps, "bounds"), metric.bounds)


def ordered(steps: Steps, bounds: tuple[float, float]) -> Iterator[Finding]:
    low, high = bounds
    if not 0 < high - low < math.inf:
        yield Finding(steps, f"expected bounds from low to high, found [{low:g}, {high:g}]")


def _from(steps: Steps, metric: Metric, draft: EndpointDraft) -> Iterator[Finding]:
    reading = metric.reading
    if metric.source != "answer":
        if reading is not None:
            yield only(steps, "from", "source answer", f"source {metric.source}")
        return
    if metric.type not in POSTED:
        message = f"expected {_POSTED_WORDS} for source answer, found {metric.type}"
        yield Finding((*steps, "type"), message)
    if reading is None:
        message = 'expected a place for source answer, such as from: "json:/usage/completion_tokens", found none'
        yield Finding(steps, message)
    elif reading.kind == "stream":
        yield from _stream(steps, reading, metric, draft)


def _stream(steps: Steps, reading: Reading, metric: Metric, draft: EndpointDraft) -> Iterator[Finding]:
    if draft.protocol == "oip":
        message = (
            f"expected header: or json: for protocol: oip, which has no event streams, found {shown(str(reading))}"
        )
        yield Finding((*steps, "from"), message)
    if (reading.what == "aborted") != (metric.type == "binary"):
        wanted = "binary" if reading.what == "aborted" else "bounded, count or unbounded"
        yield Finding((*steps, "type"), f"expected {wanted} for {reading}, found {metric.type}")


def _gateway(steps: Steps, name: str, metric: Metric) -> Iterator[Finding]:
    if metric.type != "latency" and (metric.type != "binary" or name != "errors"):
        message = (
            "expected outcome, found gateway: of itself the gateway knows metrics of type latency, and one of"
            f" type binary by the name errors; this is {metric.type} by the name {name}"
        )
        yield Finding((*steps, "source"), message)
        return
    if metric.direction != "decrease":
        message = f"expected decrease for {metric.type if metric.type == 'latency' else name}, found increase"
        yield Finding((*steps, "direction"), message)
    for key in _OUTCOMES_ALONE:
        if key in metric.model_fields_set:
            yield only(steps, key, "source outcome", "source gateway")


def _outcome(steps: Steps, metric: Metric) -> Iterator[Finding]:
    if metric.type == "latency":
        if metric.source == "outcome":
            yield Finding((*steps, "source"), "expected gateway for type latency, found outcome")
        return
    if metric.window is None and metric.type != "ratio":
        yield Finding(steps, "expected a window for source outcome, such as window: 1h, found none")
    if metric.missing == "zero" and metric.type not in MISSING_IS_ZERO:
        yield Finding((*steps, "missing"), f"expected exclude or bounds for type {metric.type}, found zero")
    elif metric.missing == "zero" and "max_missing" in metric.model_fields_set:
        yield only(steps, "max_missing", "missing: exclude or bounds", "missing: zero")
    if "aggregate" in metric.model_fields_set and metric.type not in POSTED:
        yield only(steps, "aggregate", f"type {_POSTED_WORDS}", f"type {metric.type}")
    elif metric.aggregate in _TOTALS and metric.type in ("binary", "bounded"):
        message = f"expected first or max for type {metric.type}, found {metric.aggregate}: it leaves the bounds"
        yield Finding((*steps, "aggregate"), message)


def _ratio(steps: Steps, metric: Metric, draft: EndpointDraft) -> Iterator[Finding]:
    if metric.type != "ratio":
        return
    for key in _COUNTS_HAVE:
        if key in metric.model_fields_set:
            message = f"expected no {key} for type ratio, found one: it has that of its counts"
            yield Finding((*steps, key), message, at_key=True)
    for key in ("numerator", "denominator"):
        if (name := getattr(metric, key)) is not None:
            yield from _counted((*steps, key), name, draft)
    if metric.numerator is None or metric.denominator is None:
        return
    if metric.numerator == metric.denominator:
        message = f"expected another metric than the numerator, found {shown(metric.denominator)}"
        yield Finding((*steps, "denominator"), message)
    above, below = draft.metrics.get(metric.numerator), draft.metrics.get(metric.denominator)
    for key in _COUNTS_HAVE if above and below else ():
        wanted, found = getattr(above, key), getattr(below, key)
        if wanted is not None and found is not None and wanted != found:
            message = (
                f"expected a metric with the {key} of {metric.numerator}, {duration_text(wanted)},"
                f" found {duration_text(found)} of {metric.denominator}"
            )
            yield Finding((*steps, "denominator"), message)


def _counted(steps: Steps, name: str, draft: EndpointDraft) -> Iterator[Finding]:
    if name not in draft.metrics:
        counts = [name for name, metric in draft.metrics.items() if metric is not None and metric.type == "count"]
        hint = closest(name, counts) or ": the endpoint has none"
        yield Finding(steps, f"expected a metric of type count of this endpoint, found {shown(name)}{hint}")
    elif (metric := draft.metrics[name]) is not None and metric.type != "count":
        yield Finding(steps, f"expected a metric of type count, found {shown(name)} of type {metric.type}")


def _score(steps: Steps, metric: Metric, draft: EndpointDraft) -> Iterator[Finding]:
    if metric.type != "score":
        return
    if metric.direction != "decrease":
        yield Finding((*steps, "direction"), "expected decrease for type score, which is a loss, found increase")
    if metric.bounds is None and metric.loss == "absolute_error":
        message = (
            "expected bounds of label and prediction for loss absolute_error, such as bounds: [0, 600], found none"
        )
        yield Finding(steps, message)
    elif metric.bounds is not None and metric.loss != "absolute_error":
        yield only(steps, "bounds", "loss: absolute_error", f"loss: {metric.loss}")
    if draft.protocol in WITHOUT_TENSORS:
        wanted = "expected protocol: oip for type score, whose predictions are tensors"
        message = f"{wanted}, found protocol: {draft.protocol}"
        yield Finding((*steps, "type"), message)


def _predictions(draft: EndpointDraft) -> Iterator[Finding]:
    """A request has one logged prediction, whatever number of metrics score it."""
    first: tuple[str, Prediction] | None = None
    for name, metric in draft.metrics.items():
        if metric is None or metric.type != "score":
            continue
        prediction = metric.prediction or Prediction()
        first = first or (name, prediction)
        if prediction != first[1]:
            message = (
                f"expected one prediction for all metrics of type score, found {_said(prediction)}:"
                f" {first[0]} has {_said(first[1])}"
            )
            yield Finding((*draft.steps, "metrics", name, "prediction"), message)


def _said(prediction: Prediction) -> str:
    return shown(str(prediction)) if str(prediction) else "the last element"


def only(steps: Steps, key: str, wanted: str, found: str) -> Finding:
    return Finding((*steps, key), f"expected only with {wanted}, found with {found}", at_key=True)
