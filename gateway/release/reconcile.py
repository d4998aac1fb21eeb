"""What a config means for what has already happened: start, keep, adapt, hold or refuse. Pure.

The file says what may happen, the store what has happened. An edit never moves a release by itself: where both
disagree the split is kept and a person decides. A fixed split has no history that could disagree: it is the file's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec.structs import replace

from gateway.assignment.ranges import whole
from gateway.config.schema import Config, Endpoint
from gateway.errors import ConfigError, ConfigProblem
from gateway.evidence.definition import Definition, MetricDefinition
from gateway.release import compile as compiled
from gateway.release.artifacts import Artifacts
from gateway.release.stages import begun, enter, split
from gateway.release.state import Decision, ReleaseState
from gateway.release.words import withdrawn

Quarantined = Callable[[str, str], str | None]  # of (endpoint, artifact): the experiment that rolled it back

_FREE = {"answer_within_us"}  # only bounds waiting
_FILES = {"digests"}  # matter only while evidence about them is being collected


class Row(NamedTuple):
    """A row of the ledger, but for who made it and on what evidence."""

    about: ReleaseState  # names the experiment that it belongs to
    before: ReleaseState | None
    after: ReleaseState
    decision: Decision


@dataclass(slots=True)
class Reconciled:
    """The states to serve from, the experiments to begin, and those that the file has dropped in mid-run."""

    states: dict[str, ReleaseState] = field(default_factory=dict)
    starts: list[Definition] = field(default_factory=list)
    withdrawn: list[ReleaseState] = field(default_factory=list)

    def rows(self, known: Mapping[str, ReleaseState]) -> Iterator[Row]:
        """What the ledger says of it: experiments that end, that begin, and those that are held, against `known`."""
        for old in self.withdrawn:
            decision = Decision(kind="withdraw", reason="config", text=withdrawn(old))
            yield Row(old, old, self.states[old.endpoint], decision)
        for definition in self.starts:
            new = self.states[definition.endpoint]
            decision = Decision(kind="start", reason="config", text=new.hold or f"started with {new.stage}")
            yield Row(new, known.get(new.endpoint), new, decision)
        for name, new in self.states.items():
            before = known.get(name)
            if before is not None and before.experiment == new.experiment and new.hold and new.hold != before.hold:
                yield Row(new, before, new, Decision(kind="hold", reason="config", text=new.hold))


@dataclass(slots=True)
class _Case:
    """One endpoint, as the file has it and as it stands."""

    file: str
    name: str
    endpoint: Endpoint
    state: ReleaseState | None
    artifacts: Artifacts
    now_us: int

    @property
    def released(self) -> ReleaseState | None:
        """The state, if an experiment made it."""
        return self.state if self.state is not None and self.state.experiment else None

    def refuse(self, key: str, message: str) -> ConfigError:
        return ConfigError([ConfigProblem(self.file, 0, f"endpoints.{self.name}{key}", message)])


def reconcile(
    file: str,
    config: Config,
    states: Mapping[str, ReleaseState],
    definitions: Mapping[str, Definition],
    artifacts: Artifacts,
    quarantined: Quarantined,
    now_us: int,
) -> Reconciled:
    """Raises ConfigError where the file contradicts what has happened."""
    result = Reconciled()
    for name, endpoint in config.endpoints.items():
        case = _Case(file, name, endpoint, states.get(name), artifacts, now_us)
        before = case.released
        if before is not None and before.champion not in endpoint.variants:
            raise case.refuse(".variants", f"{before.champion} is the champion now and must stay in the file")
        if endpoint.experiment is None:
            result.states[name] = _fixed(case)
        elif endpoint.experiment.id in definitions:
            result.states[name] = _continue(case, definitions[endpoint.experiment.id])
        else:
            definition, result.states[name] = _start(case, quarantined)
            result.starts.append(definition)
        if before is not None and _unfinished(before) and result.states[name].experiment != before.experiment:
            result.withdrawn.append(before)
    return result


def _fixed(case: _Case) -> ReleaseState:
    """A fixed split, straight from the file; the file's champion is the champion."""
    champion = case.endpoint.champion
    before = case.released
    if before is not None and before.status == "promoted" and before.champion != champion:
        # Most likely the roles were never edited: dropping the experiment would silently undo the promotion.
        raise _says_otherwise(case, before)
    slots = whole(champion) if case.state is None or before is not None else case.state.slots
    return ReleaseState(
        endpoint=case.name,
        champion=champion,
        slots=split(slots, case.name, champion, case.endpoint.shares()),
        status="fixed",
    )


def _start(case: _Case, quarantined: Quarantined) -> tuple[Definition, ReleaseState]:
    champion = case.endpoint.champion
    if case.released is not None and case.released.champion != champion:
        raise _says_otherwise(case, case.released)
    definition = compiled.definition(case.name, case.endpoint, champion, case.artifacts)
    state = begun(definition, case.now_us)
    first = compiled.rules(case.endpoint).stages[0]
    if hold := _quarantine(case, definition, quarantined):
        return definition, replace(state, stage=first.name, stage_since_us=case.now_us, hold=hold)
    return definition, enter(state, first, case.now_us)


def _quarantine(case: _Case, definition: Definition, quarantined: Quarantined) -> str:
    """Why a person must look first, if an artifact was rolled back before. One of several holds all of them."""
    for name in definition.challengers:
        before = quarantined(case.name, case.artifacts.name(case.endpoint.variants[name]))
        if before is not None:
            artifact = "this artifact" if len(definition.challengers) == 1 else f"the artifact of {name}"
            return f"quarantined: experiment {before} rolled {artifact} back; `resume` tries it again"
    return ""


def _continue(case: _Case, known: Definition) -> ReleaseState:
    """The experiment of this id has begun: its statistics are frozen, its stages may be edited."""
    experiment = case.endpoint.experiment
    assert experiment is not None
    state = case.state
    if state is None or state.experiment != experiment.id:
        raise case.refuse(".experiment.id", f"{experiment.id} has been used; a re-run needs a new id")
    if set(known.arms) != set(case.endpoint.variants):
        raise case.refuse(".variants", f"{experiment.id} has begun with {' and '.join(known.arms)}")
    wanted = compiled.definition(case.name, case.endpoint, known.champion, case.artifacts)
    if changed := _frozen_changes(known, _in_order(wanted, known.arms), collecting=state.open):
        raise case.refuse(
            ".experiment", f"{experiment.id} has begun, so {', '.join(changed)} may not change: use a new id"
        )
    if state.status != "running" or state.hold:
        return state
    stage = next((rule for rule in compiled.rules(case.endpoint).stages if rule.name == state.stage), None)
    if stage is None or stage.share != state.stage_share:
        hold = f"config changed: stage {state.stage} is not what it was; `resume` takes up the new stages"
        return replace(state, hold=hold)
    return state


def _says_otherwise(case: _Case, state: ReleaseState) -> ConfigError:
    how = "was promoted and is the champion now" if state.status == "promoted" else "is the champion now"
    return case.refuse(
        f".variants.{state.champion}.role",
        f"{state.champion} {how}: the file must say so (to go back, roll back first)",
    )


def _unfinished(state: ReleaseState) -> bool:
    """Whether something of a release still goes on that its experiment's leaving the file would end."""
    return state.open or bool(state.kept)


def _in_order(wanted: Definition, arms: tuple[str, ...]) -> Definition:
    """The same with its challengers in another order: in a file they may stand as they like."""
    digests = dict(zip(wanted.arms, wanted.digests, strict=True))
    return replace(wanted, challengers=arms[1:], digests=tuple(digests[name] for name in arms))


def _frozen_changes(known: Definition, wanted: Definition, *, collecting: bool) -> list[str]:
    """What differs in the definition, in words."""
    free = _FREE if collecting else _FREE | _FILES
    changed = [
        name for name in known.__struct_fields__ if name not in free and getattr(known, name) != getattr(wanted, name)
    ]
    return [words for name in changed for words in _in_words(name, known, wanted)]


def _in_words(name: str, known: Definition, wanted: Definition) -> list[str]:
    """A changed field as a person finds it in the file; metrics and models one by one."""
    if name == "digests":
        pairs = zip(known.arms, known.digests, wanted.digests, strict=True)
        return [_file_of(arm, known) for arm, before, after in pairs if before != after]
    if name == "metrics":
        return _metrics_in_words(known.metrics, wanted.metrics)
    return [name]


def _file_of(arm: str, known: Definition) -> str:
    if arm == known.champion:
        return "the champion's model"
    return "the challenger's model" if len(known.challengers) == 1 else f"the model of {arm}"


def _metrics_in_words(known: tuple[MetricDefinition, ...], wanted: tuple[MetricDefinition, ...]) -> list[str]:
    before = {metric.name: metric for metric in known}
    after = {metric.name: metric for metric in wanted}
    names = [metric for metric in {**before, **after} if before.get(metric) != after.get(metric)]
    return [f"metric {metric}" for metric in names] or ["the order of the metrics"]
