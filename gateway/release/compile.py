"""From what a person wrote to what the machine needs: definition, rules, thresholds and the plan.

Pure but for one thing: the model files are read (`Artifacts`) if that has not happened yet.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from decimal import Decimal

from gateway.assignment.ranges import width
from gateway.config.places import Prediction, filled
from gateway.config.schema import (
    CONNECT_TIMEOUT,
    IDLE_TIMEOUT,
    MAX_BATCH,
    RETRIES,
    STREAM_TIMEOUT,
    THREADS,
    Config,
    Endpoint,
    Experiment,
    HealthCheck,
    Metric,
)
from gateway.evidence.definition import Definition, MetricDefinition
from gateway.evidence.report import Thresholds
from gateway.plan import (
    CapturePlan,
    CheckPlan,
    CovariatePlan,
    EndpointPlan,
    MetricPlan,
    OutcomesPlan,
    Plan,
    ReadingPlan,
    SegmentPlan,
    SigningKey,
    VariantPlan,
)
from gateway.release.artifacts import Artifacts
from gateway.release.state import ReleaseState, StageRule
from gateway.release.view import Rules

_GRACE_US = 1_000_000  # for a completion, beyond the deadlines of both attempts: a challenger's, then the champion's


def micros(seconds: float | None) -> int:
    return round((seconds or 0.0) * 1e6)


def definition(endpoint_name: str, endpoint: Endpoint, champion: str, artifacts: Artifacts) -> Definition:
    """What the statistics freeze when the experiment starts."""
    experiment = endpoint.experiment
    assert experiment is not None
    variants = endpoint.variants
    challengers = tuple(name for name in variants if name != champion)
    return Definition(
        id=experiment.id,
        endpoint=endpoint_name,
        champion=champion,
        challengers=challengers,
        metrics=tuple(_metric(name, endpoint, experiment) for name in endpoint.metrics),
        objective=experiment.objective.metric,
        expected_effect=experiment.objective.expected_effect,
        min_effect=experiment.objective.min_effect,
        require_min_effect=experiment.objective.require == "min_effect",
        segments=tuple(endpoint.segments),
        segment_values=tuple(segment.values for segment in endpoint.segments.values()),
        answer_within_us=micros(endpoint.answer_within(champion)) + _GRACE_US,
        covariates=len(endpoint.covariates),
        paired=experiment.shadow is not None,
        cycle_us=micros(experiment.decision.cycle),
        holdback=experiment.holdback is not None,
        aa=experiment.aa,
        digests=tuple(artifacts.identity(variants[name]) for name in (champion, *challengers)),
    )


def _metric(name: str, endpoint: Endpoint, experiment: Experiment) -> MetricDefinition:
    metric = endpoint.metrics[name]
    timed = endpoint.timed(metric)
    guardrail = next((one for one in experiment.guardrails if one.metric == name), None)
    relative = guardrail.relative_margin if guardrail else None
    low, high = metric.extent
    return MetricDefinition(
        name=name,
        type=metric.type,
        source="gateway" if metric.source == "gateway" else "outcome",
        increase=metric.direction == "increase",
        low=low,
        high=high,
        limit_us=micros(metric.limit),
        window_us=micros(timed.window),
        grace_us=micros(timed.grace),
        missing=metric.missing or "exclude",
        max_missing=1.0 if metric.max_missing is None else float(metric.max_missing),
        aggregate=metric.aggregate or "first",
        scale=metric.scale or "rank",
        numerator=metric.numerator or "",
        denominator=metric.denominator or "",
        loss=metric.loss or "brier",
        margin=guardrail.margin if guardrail else None,
        relative_margin=None if relative is None else float(relative),
        floor=guardrail.floor if guardrail else 0.0,
        signal=name in experiment.signals,
        read=metric.source == "answer",
    )


def thresholds(endpoint: Endpoint) -> Thresholds:
    assert endpoint.experiment is not None
    decision, holdback = endpoint.experiment.decision, endpoint.experiment.holdback
    return Thresholds(
        alpha=decision.alpha,
        alpha_rollback=decision.alpha_rollback,
        alpha_errors=decision.alpha_errors,
        alpha_guardrail=decision.alpha_guardrail,
        alpha_srm=decision.alpha_srm,
        run_length=float(holdback.run_length) if holdback else 1e6,
    )


def rules(endpoint: Endpoint) -> Rules:
    experiment = endpoint.experiment
    assert experiment is not None
    holdback = experiment.holdback
    return Rules(
        stages=tuple(
            StageRule(
                name=stage.name,
                share=stage.traffic,
                min_duration_us=micros(stage.min_duration),
                min_units=stage.min_units,
                min_challenger_units=stage.min_challenger_units,
            )
            for stage in experiment.stages
        ),
        automation=experiment.automation,
        hold_at=experiment.decision.hold_at,
        futility=experiment.decision.futility == "last_stage",
        max_units=experiment.decision.max_units,
        max_duration_us=micros(experiment.decision.max_duration),
        on_inconclusive=experiment.decision.on_inconclusive,
        segment_harm=experiment.decision.segment_harm,
        holdback=holdback.traffic if holdback else Decimal(0),
        watch_us=micros(holdback.watch) if holdback else 0,
    )


def compile_plan(
    config: Config,
    config_digest: str,
    states: Mapping[str, ReleaseState],
    artifacts: Artifacts,
    keys: tuple[SigningKey, ...],
    pepper: str,
) -> Plan:
    """The whole plan, without a revision; raises ModelError if an artifact that was never read cannot be."""
    return Plan(
        revision=0,
        config_digest=config_digest,
        as_of=0,
        endpoints=tuple(
            _endpoint(name, endpoint, states[name], artifacts) for name, endpoint in config.endpoints.items()
        ),
        keys=keys,
        pepper=pepper,
        max_body=config.data.max_body,
        max_connections=0 if config.data.max_connections == "auto" else config.data.max_connections,
        max_requests=config.data.max_requests,
        trusted_proxies=tuple(map(str, config.data.trusted_proxies)),
        outcomes=OutcomesPlan(durability=config.outcomes.durability, keys=tuple(_digests(config.outcomes.keys))),
        max_spool=config.spool.max_size,
    )


def _endpoint(name: str, endpoint: Endpoint, state: ReleaseState, artifacts: Artifacts) -> EndpointPlan:
    return EndpointPlan(
        name=name,
        protocol=endpoint.protocol,
        salt=state.experiment or name,
        experiment=state.experiment,
        stage=state.stage,
        unit_header=endpoint.unit.header,
        variants=tuple(_variants(endpoint, state, artifacts)),
        slots=state.slots,
        segments=tuple(
            SegmentPlan(name=segment_name, header=segment.header, values=tuple(segment.values))
            for segment_name, segment in endpoint.segments.items()
        ),
        metrics=tuple(_outcome(metric_name, metric) for metric_name, metric in endpoint.metrics.items()),
        covariates=tuple(
            CovariatePlan(name=number, header=covariate.header, low=covariate.bounds[0], high=covariate.bounds[1])
            for number, covariate in endpoint.covariates.items()
        ),
        capture=_capture(endpoint),
        shadow=_shadow(endpoint, state),
        # what the file has dropped since can be neither read nor served
        kept=tuple(one for one in state.kept if one.segment in endpoint.segments and one.variant in endpoint.variants),
        mask_model=endpoint.mask_model,
        readings=tuple(_readings(endpoint)) if state.experiment else (),
    )


def _variants(endpoint: Endpoint, state: ReleaseState, artifacts: Artifacts) -> Iterator[VariantPlan]:
    for name, variant in endpoint.variants.items():
        yield VariantPlan(
            name=name,
            role="champion" if name == state.champion else "challenger",
            timeout=variant.timeout,
            onnx=artifacts.place(variant),
            digest=artifacts.digest(variant),
            threads=variant.threads or THREADS,
            max_batch=variant.max_batch or MAX_BATCH,
            urls=variant.url or (),
            ca=str(variant.ca or ""),
            idempotent=variant.idempotent,
            model=variant.model or "",
            headers=tuple((header, filled(text, os.environ)) for header, text in variant.headers.items()),
            connect_timeout=variant.connect_timeout or CONNECT_TIMEOUT,
            first_byte_timeout=variant.first_byte_timeout,
            idle_timeout=variant.idle_timeout or IDLE_TIMEOUT,
            stream_timeout=variant.stream_timeout or STREAM_TIMEOUT,
            retries=RETRIES if variant.retries is None else variant.retries,
            check=_check(variant.health),
        )


def _digests(templates: tuple[str, ...]) -> Iterator[str]:
    """Of keys, which themselves are written down nowhere."""
    for template in templates:
        yield hashlib.sha256(filled(template, os.environ).encode()).hexdigest()


def _check(health: HealthCheck | None) -> CheckPlan | None:
    if health is None:
        return None
    return CheckPlan(path=health.path, interval=health.interval, timeout=health.timeout)


def _readings(endpoint: Endpoint) -> Iterator[ReadingPlan]:
    for name, metric in endpoint.metrics.items():
        if metric.reading is not None:
            yield ReadingPlan(metric=name, kind=metric.reading.kind, what=metric.reading.what)


def _outcome(name: str, metric: Metric) -> MetricPlan:
    low, high = metric.posted
    return MetricPlan(name=name, type=metric.type, source=metric.source, low=low, high=high)


def capture(endpoint: Endpoint) -> Prediction | None:
    """Which number of an answer is scored, if some metric scores it; all that do agree."""
    scores = (metric for metric in endpoint.metrics.values() if metric.type == "score")
    return next((metric.prediction or Prediction() for metric in scores), None)


def _capture(endpoint: Endpoint) -> CapturePlan | None:
    prediction = capture(endpoint)
    return None if prediction is None else CapturePlan(output=prediction.output, index=prediction.index)


def _shadow(endpoint: Endpoint, state: ReleaseState) -> int:
    """Once it is decided, nobody learns from copies any more."""
    experiment = endpoint.experiment
    if experiment is None or experiment.shadow is None or state.status != "running":
        return 0
    return width(experiment.shadow)
