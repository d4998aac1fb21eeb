"""An old log with new coins: the champion's own units, dealt anew to all variants, over and over.

Every one of them was answered by the champion, so whoever is called the challenger is exactly as good, and any verdict
is a false one. Levels, tails, drift, seasons and missing outcomes are those of the real traffic.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np
from msgspec.structs import replace

from gateway.errors import GatewayError
from gateway.evidence.batch import Batch, Floats
from gateway.evidence.closing import losses_of, measured, values_of
from gateway.evidence.definition import MetricDefinition
from gateway.evidence.report import WATCH
from gateway.export.source import OpenStore, reading
from gateway.forecast.arrivals import Arrivals, Coins
from gateway.forecast.subject import Subject
from gateway.forecast.traffic import DAY_US
from gateway.forecast.trial import START_US
from gateway.release.state import ReleaseState
from gateway.store.base import Measured, Scored

LEAST = 200  # units below which a verdict would say nothing
_FOREVER_US = 10**17


class LogError(GatewayError):
    """The store has no log that could be dealt anew."""

    reason = "log"


class Log:
    """The champion's closed units of one experiment, in the order of their coins."""

    def __init__(self, subject: Subject, experiment: str, batch: Batch, values: dict[str, Floats]) -> None:
        self.experiment = experiment
        self._coins = Coins(subject.definition)
        self._batch = batch
        self._values = values

    def __len__(self) -> int:
        return len(self._batch)

    @property
    def days(self) -> float:
        return float(self._batch.at[-1] - self._batch.at[0]) / DAY_US

    def arrive(self, rng: np.random.Generator, n: int, state: ReleaseState, since_us: int) -> Arrivals | None:
        """The next n units with new coins; None behind the last."""
        begin = int(np.searchsorted(self._batch.at, since_us, side="right"))
        if begin == len(self):
            return None
        part = slice(begin, min(begin + n, len(self)))
        count, odds = part.stop - begin, self._coins.odds(state)
        batch = dataclasses.replace(
            self._batch.where(part),
            stages=np.full(count, state.stage),
            arms=self._coins.toss(rng, count, odds),
            odds=np.broadcast_to(odds, (count, len(odds))),
        )
        return Arrivals(batch, {name: values[part] for name, values in self._values.items()})

    def staged(self, subject: Subject) -> Subject:
        """The experiment fitted to the log: every stage gets an equal part of its units, and nothing else ends it.

        Minimums, cycle and limits on time would only keep verdicts back.
        """
        stages = subject.rules.stages
        ends = [self._batch.at[len(self) * (place + 1) // len(stages) - 1] for place in range(len(stages))]
        lengths = [*np.diff([START_US, *ends[:-1]]).tolist(), 0]
        fitted = tuple(
            replace(stage, min_duration_us=int(length), min_units=0, min_challenger_units=0)
            for stage, length in zip(stages, lengths, strict=True)
        )
        rules = replace(subject.rules, stages=fitted, max_units=None, max_duration_us=_FOREVER_US)
        return subject._replace(definition=replace(subject.definition, cycle_us=0), rules=rules)


def read(url: str, subject: Subject, experiment: str | None) -> Log:
    """The log of an experiment in the store of that URL: by default the config's, else the last one of its endpoint.

    Raises LogError if there is none, or too few units; StoreError if there is no store, or its engine fails.
    """
    if subject.definition.paired:
        raise LogError("the objective is decided by pairs: there are no coins to toss anew")
    with reading(url) as store, store.transaction():  # every metric is read at one moment, or values would not match
        return _read(store, subject, _named(store, subject, experiment))


def _named(store: OpenStore, subject: Subject, wanted: str | None) -> str:
    known = {name: endpoint for name, (endpoint, _) in store.experiments().items()}
    here = [name for name, endpoint in known.items() if endpoint == subject.definition.endpoint]
    if wanted is None and here:
        return subject.definition.id if subject.definition.id in here else here[-1]
    if wanted in known:
        return wanted
    missing = wanted or f"at {subject.definition.endpoint}"
    raise LogError(f"the store knows no experiment {missing}; it knows {', '.join(known) or 'none'}")


def _read(store: OpenStore, subject: Subject, experiment: str) -> Log:
    step = store.last_step()
    until = (step.watermark if step else 0) - max(subject.definition.longest_us, subject.definition.answer_within_us)
    rows = {
        metric.name: [row for row in _rows(store, subject, experiment, metric) if _closed(row, until)]
        for metric in subject.judged
    }
    values = {metric.name: _values(metric, rows[metric.name]) for metric in subject.judged}
    first = rows[subject.objective.name]
    if len(first) < LEAST:
        raise LogError(
            f"{experiment} has {len(first)} units of its champion with closed windows; {LEAST} are the least that"
            " can be dealt anew"
        )
    batch = Batch.of(first, subject.definition.covariates)  # type: ignore[arg-type]  # all of one kind
    # Strictly ascending: a place in the log is found by its time.
    places = np.arange(len(batch))
    at = np.maximum.accumulate(batch.at - batch.at[0] - places) + places + START_US + 1
    return Log(subject, experiment, dataclasses.replace(batch, at=at), values)


def _closed(row: Measured | Scored, until: int) -> bool:
    return row.arm == 0 and bool(row.complete) and row.stage != WATCH and row.at <= until


def _rows(store: OpenStore, subject: Subject, experiment: str, metric: MetricDefinition) -> Iterator[Measured | Scored]:
    if metric.type == "score":
        return store.scored_values(experiment, metric.name, 0, metric.within_us)
    return measured(store, experiment, subject.definition, metric)


def _values(metric: MetricDefinition, rows: Iterable[Measured | Scored]) -> Floats:
    if metric.type == "score":
        return losses_of(metric, [row for row in rows if isinstance(row, Scored)])
    return values_of(metric, [row for row in rows if isinstance(row, Measured)])
