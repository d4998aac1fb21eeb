"""What the error rates of a config add up to (rule R16): in numbers, and in words for whoever signs them."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from gateway.evidence.definition import MetricDefinition
from gateway.forecast.subject import Subject


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of error: over the whole experiment, however often anybody looks, it happens at most that often."""

    name: str  # a bounded word
    at_most: float
    what: str
    why: str


def limits(subject: Subject) -> tuple[Limit, ...]:
    return tuple(_limits(subject))


def false_promotion(subject: Subject) -> float:
    return subject.thresholds.alpha


def false_rollback(subject: Subject) -> float:
    """Of any harmless challenger; at most 1."""
    every = sum(_harm_alphas(subject).values())
    if subject.rules.segment_harm == "rollback":
        every += sum(_segment_alphas(subject).values())
    return min(1.0, every * len(subject.definition.challengers))


def _limits(subject: Subject) -> Iterator[Limit]:
    thresholds, rivals = subject.thresholds, len(subject.definition.challengers)
    least = subject.definition.min_effect if subject.definition.require_min_effect else 0.0
    worth = f"no better than {least:g}" if least else "no better"
    yield Limit(
        name="false_promotion",
        at_most=thresholds.alpha,
        what=f"a challenger is promoted that is {worth}",
        why="alpha" if rivals == 1 else f"alpha over all {rivals} challengers, each at alpha/{rivals} (e-Bonferroni)",
    )
    if subject.definition.guardrails:
        names = ", ".join(metric.name for metric in subject.definition.guardrails)
        yield Limit(
            name="promotion_at_margin",
            at_most=thresholds.alpha_guardrail,
            what=f"a challenger is promoted that is worse by a whole margin ({names})",
            why="alpha_guardrail, for each guardrail and challenger; beyond the margin it is less",
        )
    yield Limit(
        name="false_rollback",
        at_most=false_rollback(subject),
        what="a challenger goes although it is not worse, and within every margin",
        why=_sum_of(subject, rivals),
    )
    ratios = ("the split itself", *_labelled(subject))
    yield Limit(
        name="false_freeze",
        at_most=min(1.0, len(ratios) * thresholds.alpha_srm),
        what="a healthy split is called wrong, and the release waits for a person",
        why=f"alpha_srm for each of: {', '.join(ratios)}",
    )
    if subject.definition.segments and subject.rules.segment_harm != "rollback":
        alphas = _segment_alphas(subject)
        restrict = subject.rules.segment_harm == "restrict"
        yield Limit(
            name="false_segment_harm",
            at_most=min(1.0, sum(alphas.values()) * rivals),
            what="a segment stays with the champion although it is not harmed"
            if restrict
            else "a harmless challenger is refused because one segment seems harmed",
            why=" + ".join(f"{alpha:g} ({name})" for name, alpha in alphas.items())
            + f", each shared by {family(subject)} segments",
        )


def family(subject: Subject) -> int:
    """Segments that are tested: every declared value, and "other" of each."""
    return sum(len(values) + 1 for values in subject.definition.segment_values)


def _deciding(subject: Subject) -> list[MetricDefinition]:
    return [metric for metric in subject.judged if not metric.signal]


def _alpha(subject: Subject, metric: MetricDefinition) -> float:
    errors = metric.type == "binary" and metric.source == "gateway"
    return subject.thresholds.alpha_errors if errors else subject.thresholds.alpha_rollback


def _harm_alphas(subject: Subject) -> dict[str, float]:
    """Of each metric whose harm rolls back. The quantiles of a latency share one: their mean is one e-process."""
    return {metric.name: _alpha(subject, metric) for metric in _deciding(subject)}


def _segment_alphas(subject: Subject) -> dict[str, float]:
    """Of each metric, over all segments together."""
    if not subject.definition.segments:
        return {}
    return {metric.name: _alpha(subject, metric) for metric in _deciding(subject)}


def _labelled(subject: Subject) -> list[str]:
    """Metrics whose missing outcomes are counted by arm, too."""
    metrics = subject.definition.metrics
    return [f"outcomes of {one.name}" for one in metrics if one.source == "outcome" and one.missing != "zero"]


def _sum_of(subject: Subject, rivals: int) -> str:
    parts = [f"{alpha:g} ({name})" for name, alpha in _harm_alphas(subject).items()]
    if subject.rules.segment_harm == "rollback":
        parts += [f"{alpha:g} (segments of {name})" for name, alpha in _segment_alphas(subject).items()]
    together = " + ".join(parts)
    return together if rivals == 1 else f"{rivals} challengers x ({together})"
