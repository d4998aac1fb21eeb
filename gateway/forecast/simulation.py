"""From a config and assumptions to a table of how such experiments end."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from time import monotonic

import msgspec
from msgspec.structs import replace

from gateway.forecast import past
from gateway.forecast.assumptions import Assumption
from gateway.forecast.limits import Limit, limits
from gateway.forecast.made_up import MadeUp, Scenario
from gateway.forecast.many import Batch, results
from gateway.forecast.power import ObjectivePower
from gateway.forecast.schedule import schedule
from gateway.forecast.subject import Subject
from gateway.forecast.summary import Row, summary
from gateway.forecast.traffic import DAY_US
from gateway.forecast.trial import Pace, Result

LOOKS = 100  # in a stage, at least
Ticks = Callable[[], None]


class Runs(msgspec.Struct, frozen=True, kw_only=True):
    """How often, and by which chance."""

    count: int
    seed: int
    jobs: int = 1
    look_every: int | None = None  # units; by default a hundredth of each stage


class Simulation(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is printed."""

    endpoint: str
    experiment: str
    objective: str
    challengers: tuple[str, ...]
    source: str  # made_up, or the experiment whose log was dealt anew
    stages: dict[str, float]  # share by name
    look_every: dict[str, int]
    seed: int
    seconds: float
    rows: tuple[Row, ...]
    limits: tuple[Limit, ...]
    # Made up:
    traffic: float = 0.0  # units a day
    drift: float = 0.0
    worse: dict[str, float] = {}
    assumptions: tuple[Assumption, ...] = ()
    # From a log:
    log_units: int = 0
    log_days: float = 0.0


def made_up(
    subject: Subject,
    assumed: Mapping[str, Assumption],
    traffic: float,
    scenarios: Sequence[Scenario],
    runs: Runs,
    done: Ticks,
) -> Simulation:
    """Runs for every scenario. Raises AssumptionError, before the first run, for one that cannot be."""
    begun = monotonic()
    subject = _trial_of(subject)
    longest = _longest_us(subject, traffic)
    pace = _pace(subject, assumed, traffic, runs.look_every)
    worlds = [MadeUp(subject, assumed, scenario, traffic, longest) for scenario in scenarios]
    rows = [
        summary(subject, assumed, scenario, _all(Batch(subject, world, pace), runs, done))
        for scenario, world in zip(scenarios, worlds, strict=True)
    ]
    return replace(
        _told(subject, pace, rows, runs, begun),
        traffic=traffic,
        drift=scenarios[0].drift,
        worse=dict(scenarios[0].worse),
        assumptions=tuple(assumed.values()),
    )


def from_log(subject: Subject, store: str, experiment: str | None, runs: Runs, done: Ticks) -> Simulation:
    """The champion's own units, dealt anew: every verdict is a false one. `store` is a URL.

    Raises LogError if there are too few; StoreError if they cannot be read.
    """
    begun = monotonic()
    log = past.read(store, subject, experiment)
    subject = _trial_of(log.staged(subject))
    names = [stage.name for stage in subject.rules.stages]
    every = runs.look_every or max(1, len(log) // (LOOKS * len(names)))
    pace = Pace(every=dict.fromkeys(names, every))
    scenario = Scenario(effect=0.0, worse={}, drift=0.0)
    row = summary(subject, {}, scenario, _all(Batch(subject, log, pace), runs, done))
    told = _told(subject, pace, [row], runs, begun)
    return replace(told, source=log.experiment, log_units=len(log), log_days=log.days)


def _all(batch: Batch, runs: Runs, done: Ticks) -> list[Result]:
    return results(batch, runs.count, runs.seed, runs.jobs, done)


def _trial_of(subject: Subject) -> Subject:
    """As if everything was done automatically, and as if it was no A/A trial: then nothing would be decided."""
    definition = replace(subject.definition, aa=False)
    return subject._replace(definition=definition, rules=replace(subject.rules, automation="full"))


def _longest_us(subject: Subject, traffic: float) -> int:
    units = subject.rules.max_units
    by_units = math.inf if units is None else units / traffic * DAY_US
    return int(min(subject.rules.max_duration_us, by_units))


def _pace(subject: Subject, assumed: Mapping[str, Assumption], traffic: float, every: int | None) -> Pace:
    """A hundred looks in what each stage is expected to take."""
    legs = schedule(subject, traffic)
    if every is not None:
        return Pace(every={leg.name: every for leg in legs.legs})
    power = ObjectivePower(subject, assumed[subject.objective.name], legs)
    evidence = power.days(subject.definition.expected_effect)
    most = _longest_us(subject, traffic) / DAY_US - legs.last.begins
    last = min(most, max(legs.last.days, evidence - legs.last.begins))
    spans = {leg.name: leg.days for leg in legs.legs} | {legs.last.name: last if last > 0.0 else legs.last.days}
    return Pace(every={name: max(1, int(days * traffic) // LOOKS) for name, days in spans.items()})


def _told(subject: Subject, pace: Pace, rows: Sequence[Row], runs: Runs, begun: float) -> Simulation:
    return Simulation(
        endpoint=subject.definition.endpoint,
        experiment=subject.definition.id,
        objective=subject.objective.name,
        challengers=subject.definition.challengers,
        source="made_up",
        stages={stage.name: float(stage.share) for stage in subject.rules.stages},
        look_every=pace.every,
        seed=runs.seed,
        seconds=monotonic() - begun,
        rows=tuple(rows),
        limits=limits(subject),
    )
