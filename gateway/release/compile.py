"""From what a person wrote to what the machine needs: definition, rules, thresholds and the plan.

Pure but for one thing: artifacts are digested and their signatures read (`Artifacts`), when a config is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gateway.backends.onnx import Signature, digest, inspect
from gateway.config.schema import Config, Endpoint, Metric, Variant
from gateway.evidence.definition import Definition, MetricDefinition
from gateway.evidence.verdict import Thresholds
from gateway.plan import EndpointPlan, MetricPlan, Plan, SegmentPlan, SigningKey, VariantPlan
from gateway.release.policy import Rules
from gateway.release.state import ReleaseState, StageRule

_GRACE_US = 1_000_000  # for a completion, beyond the deadlines of both attempts


class Artifacts:
    """Digests and signatures of a config's model files, as they were when it was taken.

    Between two configs no file is looked at: a rollback must not fail because somebody has deleted the loser's file,
    and a promotion must not bring in a file that was changed on the way.
    """

    def __init__(self, before: Artifacts | None = None) -> None:
        # A file that has not changed on disk is not read again for the next config.
        self._read: dict[tuple[Path, int, int, int], tuple[str, Signature]] = dict(before._read) if before else {}
        self._pinned: dict[Path, tuple[str, Signature]] = {}

    def read(self, path: Path) -> tuple[str, Signature]:
        """Digest and signature of the file as it is now; raises ModelError or OSError if it cannot be served."""
        stat = path.stat()
        key = path, stat.st_ino, stat.st_mtime_ns, stat.st_size
        if key not in self._read:
            self._read[key] = digest(path), inspect(path)
        self._pinned[path] = self._read[key]
        return self._read[key]

    def digest(self, variant: Variant) -> str:
        """The digest of a variant's file, "" for an upstream."""
        if variant.onnx is None:
            return ""
        if variant.onnx not in self._pinned:
            self.read(variant.onnx)
        return self._pinned[variant.onnx][0]

    def name(self, variant: Variant) -> str:
        """What a quarantine remembers: the digest of the file, or the URL."""
        return self.digest(variant) or str(variant.url)


def micros(seconds: float | None) -> int:
    return round((seconds or 0.0) * 1e6)


def definition(endpoint_name: str, endpoint: Endpoint, champion: str, artifacts: Artifacts) -> Definition:
    """What the statistics freeze when the experiment starts."""
    experiment = endpoint.experiment
    assert experiment is not None
    margins = {guardrail.metric: guardrail.margin for guardrail in experiment.guardrails}
    timeouts = sum(variant.timeout for variant in endpoint.variants.values())
    challenger = next(name for name in endpoint.variants if name != champion)
    return Definition(
        id=experiment.id,
        endpoint=endpoint_name,
        champion=champion,
        challenger=challenger,
        metrics=tuple(_metric(name, m, margins.get(name)) for name, m in endpoint.metrics.items()),
        objective=experiment.objective.metric,
        expected_effect=experiment.objective.expected_effect,
        min_effect=experiment.objective.min_effect,
        segments=tuple(endpoint.segments),
        segment_values=tuple(segment.values for segment in endpoint.segments.values()),
        answer_within_us=micros(timeouts) + _GRACE_US,
        champion_digest=artifacts.digest(endpoint.variants[champion]),
        challenger_digest=artifacts.digest(endpoint.variants[challenger]),
    )


def _metric(name: str, metric: Metric, margin: float | None) -> MetricDefinition:
    low, high = metric.bounds or (0.0, 1.0)
    return MetricDefinition(
        name=name,
        type=metric.type,
        source=metric.source,
        increase=metric.direction == "increase",
        low=low,
        high=high,
        limit_us=micros(metric.limit),
        window_us=micros(metric.window),
        grace_us=micros(metric.grace),
        missing=metric.missing or "exclude",
        max_missing=1.0 if metric.max_missing is None else float(metric.max_missing),
        margin=margin,
    )


def thresholds(endpoint: Endpoint) -> Thresholds:
    assert endpoint.experiment is not None
    decision = endpoint.experiment.decision
    return Thresholds(
        alpha=decision.alpha,
        alpha_rollback=decision.alpha_rollback,
        alpha_errors=decision.alpha_errors,
        alpha_guardrail=decision.alpha_guardrail,
        alpha_srm=decision.alpha_srm,
    )


def rules(endpoint: Endpoint) -> Rules:
    experiment = endpoint.experiment
    assert experiment is not None
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
    )


def _endpoint(name: str, endpoint: Endpoint, state: ReleaseState, artifacts: Artifacts) -> EndpointPlan:
    variants = tuple(
        VariantPlan(
            name=variant_name,
            role="champion" if variant_name == state.champion else "challenger",
            timeout=variant.timeout,
            onnx=str(variant.onnx or ""),
            digest=artifacts.digest(variant),
            url=variant.url or "",
            idempotent=variant.idempotent,
        )
        for variant_name, variant in endpoint.variants.items()
    )
    return EndpointPlan(
        name=name,
        protocol=endpoint.protocol,
        salt=state.experiment or name,
        experiment=state.experiment,
        stage=state.stage,
        unit_header=endpoint.unit.header,
        variants=variants,
        slots=state.slots,
        segments=tuple(
            SegmentPlan(name=segment_name, header=segment.header, values=tuple(segment.values))
            for segment_name, segment in endpoint.segments.items()
        ),
        metrics=tuple(
            MetricPlan(
                name=metric_name,
                type=metric.type,
                source=metric.source,
                low=(metric.bounds or (0.0, 1.0))[0],
                high=(metric.bounds or (0.0, 1.0))[1],
            )
            for metric_name, metric in endpoint.metrics.items()
        ),
    )
