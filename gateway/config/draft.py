"""As much of a config as could be read, part by part.

Rules work on drafts, so that one wrong value does not hide what is wrong elsewhere: a part that could not be
read is None, its own fault is reported already, and the rules that need it keep silent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError

from gateway.config.scalars import parse_percent
from gateway.config.schema import Covariate, Guardrail, Metric, Objective, Segment, Stage, Variant

if TYPE_CHECKING:
    from collections.abc import Iterator
    from decimal import Decimal
    from pathlib import Path

    from gateway.config.document import Steps, Value

Part = TypeVar("Part", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class ExperimentDraft:
    """The parts of an experiment."""

    steps: Steps
    id: Value
    objective: Objective | None
    guardrails: list[Guardrail | None]
    signals: list[Value]
    stages: list[Stage | None]
    segment_harm: Value
    shadow: Value
    aa: Value


@dataclass(frozen=True, slots=True)
class EndpointDraft:
    """The parts of an endpoint."""

    steps: Steps
    protocol: Value
    mask_model: Value
    segments: dict[str, Segment | None]
    covariates: dict[str, Covariate | None]
    roles: dict[str, Value]
    variants: dict[str, Variant | None]
    traffic: dict[str, Decimal | None] | None
    metrics: dict[str, Metric | None]
    experiment: ExperimentDraft | None

    @property
    def challengers(self) -> list[str] | None:
        """The names of the challengers; None where the roles have a fault of their own."""
        challengers = [name for name, role in self.roles.items() if role == "challenger"]
        champions = list(self.roles.values()).count("champion")
        return challengers if champions == 1 and len(challengers) == len(self.roles) - 1 else None


def part(kind: type[Part], raw: Value, base: Path | None = None) -> Part | None:
    """`raw` as a `kind`, or None where it is not one."""
    try:
        return kind.model_validate(raw, context={"base": base} if base else None)
    except ValidationError:
        return None


def endpoint_drafts(raw: Value, base: Path) -> Iterator[EndpointDraft]:
    """Every endpoint that is at least a mapping."""
    for name, endpoint in mapping(mapping(raw).get("endpoints")).items():
        if isinstance(endpoint, dict):
            yield _endpoint(("endpoints", name), endpoint, base)


def mapping(raw: Value) -> dict[str, Value]:
    return raw if isinstance(raw, dict) else {}


def _endpoint(steps: Steps, raw: dict[str, Value], base: Path) -> EndpointDraft:
    variants = mapping(raw.get("variants"))
    traffic, experiment = raw.get("traffic"), raw.get("experiment")
    shares = {name: _share(share) for name, share in mapping(traffic).items()}
    return EndpointDraft(
        steps=steps,
        protocol=raw.get("protocol"),
        mask_model=raw.get("mask_model"),
        segments={name: part(Segment, segment) for name, segment in mapping(raw.get("segments")).items()},
        covariates={name: part(Covariate, one) for name, one in mapping(raw.get("covariates")).items()},
        roles={name: mapping(variant).get("role") for name, variant in variants.items()},
        variants={name: part(Variant, variant, base) for name, variant in variants.items()},
        traffic=None if traffic is None else shares,
        metrics={name: part(Metric, metric) for name, metric in mapping(raw.get("metrics")).items()},
        experiment=None if experiment is None else _experiment((*steps, "experiment"), mapping(experiment)),
    )


def _experiment(steps: Steps, raw: dict[str, Value]) -> ExperimentDraft:
    return ExperimentDraft(
        steps=steps,
        id=raw.get("id"),
        objective=part(Objective, raw.get("objective")),
        guardrails=[part(Guardrail, one) for one in _entries(raw.get("guardrails"))],
        signals=_entries(raw.get("signals")),
        stages=[part(Stage, one) for one in _entries(raw.get("stages"))],
        segment_harm=mapping(raw.get("decision")).get("segment_harm"),
        shadow=raw.get("shadow"),
        aa=raw.get("aa"),
    )


def _entries(raw: Value) -> list[Value]:
    return raw if isinstance(raw, list) else []


def _share(raw: Value) -> Decimal | None:
    try:
        return parse_percent(raw)
    except ValueError:
        return None
