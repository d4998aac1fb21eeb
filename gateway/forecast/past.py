"""An old log with new coins: the champion's own units, dealt anew to all variants, over and over.

Every one of them was answered by the champion, so whoever is called the challenger is exactly as good, and any verdict
is a false one. Levels, tails, drift, seasons and missing outcomes are those of the real traffic.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from gateway.errors import GatewayError, StoreError
from gateway.evidence.batch import Batch, Floats, column
from gateway.evidence.definition import MetricDefinition
from gateway.evidence.report import WATCH
from gateway.evidence.scoring import loss
from gateway.forecast.arrivals import Arrivals, Coins
from gateway.forecast.subject import Subject
from gateway.forecast.trial import START_US
from gateway.release.state import ReleaseState
from gateway.store.base import Measured, Scored
from gateway.store.sqlite import SqliteStore

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
        return float(self._batch.at[-1] - self._batch.at[0]) / 8.64e10

    def arrive(self, rng: np.random.Generator, n: int, state: ReleaseState, since_us: int) -> Arrivals | None:
        """The next n units with new coins; None behind the last."""
        begin = int(np.searchsorted(self._batch.at, since_us, side="right"))
        if begin == len(self):
            return None
        part = slice(begin, min(begin + n, len(self)))
        known, odds = self._batch, self._coins.odds(state)
        count = part.stop - begin
        batch = Batch(
            at=known.at[part],
            stages=np.full(count, state.stage),
            arms=self._coins.toss(rng, count, odds),
            odds=np.broadcast_to(odds, (count, len(odds))),
            segments=known.segments[part],
            x=None if known.x is None else known.x[part],
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


def read(path: Path, subject: Subject, experiment: str | None) -> Log:
    """The log of an experiment: by default the config's, else the last one of its endpoint.

    Raises LogError if there is none, or too few units; StoreError if the engine fails.
    """
    if subject.definition.paired:
        raise LogError("the objective is decided by pairs: there are no coins to toss anew")
    if not path.exists():
        raise LogError(f"{path}: there is no store yet: serve from this config first")
    store = SqliteStore(path, read_only=True)
    try:
        return _read(store, subject, _named(store, subject, experiment))
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}") from error
    finally:
        store.close()


def _named(store: SqliteStore, subject: Subject, wanted: str | None) -> str:
    known = {name: endpoint for name, (endpoint, _) in store.experiments().items()}
    here = [name for name, endpoint in known.items() if endpoint == subject.definition.endpoint]
    if wanted is None and here:
        return subject.definition.id if subject.definition.id in here else here[-1]
    if wanted in known:
        return wanted
    missing = wanted or f"at {subject.definition.endpoint}"
    raise LogError(f"the store knows no experiment {missing}; it knows {', '.join(known) or 'none'}")


def _read(store: SqliteStore, subject: Subject, experiment: str) -> Log:
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
    batch = Batch.of(first, 0)  # type: ignore[arg-type]  # all of one kind
    covariates = subject.definition.covariates
    x = np.array([_numbers(row.covariates, covariates) for row in first]) if covariates else None
    # Strictly ascending: a place in the log is found by its time.
    places = np.arange(len(batch))
    at = np.maximum.accumulate(batch.at - batch.at[0] - places) + places + START_US + 1
    whole = Batch(at=at, stages=batch.stages, arms=batch.arms, odds=batch.odds, segments=batch.segments, x=x)
    return Log(subject, experiment, whole, values)


def _closed(row: Measured | Scored, until: int) -> bool:
    return row.arm == 0 and bool(row.complete) and row.stage != WATCH and row.at <= until


def _rows(
    store: SqliteStore, subject: Subject, experiment: str, metric: MetricDefinition
) -> Iterator[Measured | Scored]:
    definition = subject.definition
    if metric.type == "score":
        return store.scored_values(experiment, metric.name, 0, metric.within_us)
    if metric.source == "outcome":
        names = (metric.numerator, metric.denominator) if metric.type == "ratio" else (metric.name,)
        parts = [(name, definition.metric(name).aggregate) for name in names]
        return store.outcome_values(experiment, parts, 0, metric.within_us)
    read = store.request_latencies if metric.type == "latency" else store.request_errors
    return read(experiment, 0, definition.answer_within_us)


def _values(metric: MetricDefinition, rows: Iterable[Measured | Scored]) -> Floats:
    """In the form in which the fold takes them."""
    if metric.type == "score":
        scored = [row for row in rows if isinstance(row, Scored)]
        return loss(metric.loss, column(row.prediction for row in scored), column(row.label for row in scored))
    measured = [row for row in rows if isinstance(row, Measured)]
    values = column(row.value for row in measured)
    if metric.type == "ratio":
        return np.stack([values, column(row.denominator for row in measured)], axis=1)
    return values


def _numbers(text: str, count: int) -> list[float]:
    """Covariates as the log has them; one that was logged with fewer has none that could be used."""
    known = json.loads(text)
    return known if len(known) == count else [0.0] * count
