"""What a config means for what has already happened: start, keep, adapt, hold or refuse. Pure.

The file says what may happen, the store what has happened. An edit never moves a release by itself: where both
disagree the split is kept and a person decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from msgspec.structs import replace

from gateway.assignment.ranges import whole
from gateway.config.schema import Config, Endpoint
from gateway.errors import ConfigError, ConfigProblem
from gateway.evidence.definition import Definition
from gateway.release import compile as compiled
from gateway.release.stages import enter, split
from gateway.release.state import ReleaseState


@dataclass(slots=True)
class Reconciled:
    """The states to serve from, and the experiments to begin."""

    states: dict[str, ReleaseState] = field(default_factory=dict)
    starts: list[Definition] = field(default_factory=list)


@dataclass(slots=True)
class _Case:
    """One endpoint, as the file has it and as it stands."""

    file: str
    name: str
    endpoint: Endpoint
    state: ReleaseState | None
    now_us: int

    def refuse(self, key: str, message: str) -> ConfigError:
        return ConfigError([ConfigProblem(self.file, 0, f"endpoints.{self.name}{key}", message)])


def reconcile(
    file: str,
    config: Config,
    states: Mapping[str, ReleaseState],
    definitions: Mapping[str, Definition],
    quarantined: Callable[[str, Endpoint, str], str | None],
    now_us: int,
) -> Reconciled:
    """Raises ConfigError where the file contradicts what has happened.

    `quarantined` tells which experiment rolled back the artifact of a variant, if one did.
    """
    result = Reconciled()
    for name, endpoint in config.endpoints.items():
        case = _Case(file, name, endpoint, states.get(name), now_us)
        if case.state is not None and case.state.champion not in endpoint.variants:
            raise case.refuse(".variants", f"{case.state.champion} is the champion now and must stay in the file")
        if endpoint.experiment is None:
            result.states[name] = _fixed(case)
            continue
        known = definitions.get(endpoint.experiment.id)
        if known is None:
            definition, state = _start(case, quarantined)
            result.starts.append(definition)
            result.states[name] = state
        else:
            result.states[name] = _continue(case, known)
    return result


def _fixed(case: _Case) -> ReleaseState:
    """A fixed split, straight from the file; the file's champion is the champion."""
    champion = case.endpoint.champion
    slots = case.state.slots if case.state and not case.state.experiment else whole(champion)
    shares = case.endpoint.shares()
    return ReleaseState(
        endpoint=case.name,
        champion=champion,
        slots=split(slots, case.name, champion, shares),
        status="fixed",
    )


def _start(case: _Case, quarantined: Callable[[str, Endpoint, str], str | None]) -> tuple[Definition, ReleaseState]:
    experiment = case.endpoint.experiment
    assert experiment is not None
    champion = case.endpoint.champion
    if case.state is not None and case.state.champion != champion:
        raise case.refuse(
            f".variants.{case.state.champion}.role",
            f"{case.state.champion} was promoted and is the champion now: a new experiment must say so",
        )
    definition = compiled.definition(case.name, case.endpoint, champion)
    state = ReleaseState(
        endpoint=case.name,
        champion=champion,
        slots=whole(champion),
        status="running",
        experiment=experiment.id,
        challenger=definition.challenger,
        started_at_us=case.now_us,
    )
    first = compiled.rules(case.endpoint).stages[0]
    before = quarantined(case.name, case.endpoint, definition.challenger)
    if before is not None:
        return definition, replace(
            state,
            stage=first.name,
            stage_since_us=case.now_us,
            hold=f"quarantined: experiment {before} rolled this artifact back",
        )
    return definition, enter(state, first, case.now_us)


def _continue(case: _Case, known: Definition) -> ReleaseState:
    """The experiment of this id has begun: its statistics are frozen, its stages may be edited."""
    experiment = case.endpoint.experiment
    assert experiment is not None
    if case.state is None or case.state.experiment != experiment.id:
        raise case.refuse(".experiment.id", f"{experiment.id} has been used; a re-run needs a new id")
    changed = _frozen_changes(known, compiled.definition(case.name, case.endpoint, known.champion))
    if changed:
        raise case.refuse(
            ".experiment", f"{experiment.id} has begun, so {', '.join(changed)} may not change: use a new id"
        )
    if case.state.status != "running" or case.state.hold:
        return case.state
    stage = next((rule for rule in compiled.rules(case.endpoint).stages if rule.name == case.state.stage), None)
    if stage is None or stage.share != case.state.stage_share:
        return replace(case.state, hold=f"config changed: stage {case.state.stage} is not what it was")
    return case.state


def _frozen_changes(known: Definition, wanted: Definition) -> list[str]:
    """Fields of the definition that differ. The deadline may change: it only bounds waiting."""
    return [
        name
        for name in known.__struct_fields__
        if name != "answer_within_us" and getattr(known, name) != getattr(wanted, name)
    ]


def shares_of(state: ReleaseState) -> dict[str, Decimal]:
    """The realised split of a state, in shares that sum to 1 (rounded to 2**-64)."""
    from gateway.plan import HASH_SPACE, shares

    return {name: Decimal(width) / HASH_SPACE for name, width in shares(state.slots).items()}
