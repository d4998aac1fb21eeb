"""What the traps share: experiments, crowds of units as columns, worlds, and the naive tests that fall into them.

A trap is driven the way production goes: either settled values through `fold_values` into verdicts, or facts through
spools, store, join and closing. Peeking at every unit is what `peak_log_e`, an exact running maximum, is.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import ArrayLike, NDArray

from benchmarks.stats_common import Measured, slack
from gateway.assignment.ranges import whole
from gateway.evidence.batch import Batch, Floats, Ints
from gateway.evidence.cells import Evidence
from gateway.evidence.definition import PROMOTE, Definition, MetricDefinition
from gateway.evidence.fold import fold_values
from gateway.evidence.report import Report, Thresholds
from gateway.evidence.verdict import judge
from gateway.release.policy import decide
from gateway.release.stages import enter
from gateway.release.state import Decision, ReleaseState, StageRule
from gateway.release.view import Rules, View
from tests.unit.evidence.world import World

Rng = np.random.Generator
Flags = NDArray[np.bool_]
Trapped = list[Measured]  # what a trap measured

ALPHA, ALPHA_ROLLBACK = 0.05, 0.01
THRESHOLDS = Thresholds(
    alpha=ALPHA, alpha_rollback=ALPHA_ROLLBACK, alpha_errors=0.001, alpha_guardrail=0.05, alpha_srm=0.001
)
STRICT = replace(THRESHOLDS, alpha=0.01)  # as configs have it by default
HOUR = 3600.0
SECOND = 1_000_000


def binary(name: str = "bought", **more: Any) -> MetricDefinition:
    """A conversion, say: posted if it happens, more is better."""
    given: dict[str, Any] = {"type": "binary", "source": "outcome", "increase": True, "missing": "zero"}
    return MetricDefinition(name=name, **(given | more))


def experiment(*metrics: MetricDefinition, expected: float = 0.02, least: float = 0.0, **more: Any) -> Definition:
    """One challenger unless told otherwise; the first metric is the objective."""
    given: dict[str, Any] = {"challengers": ("b",), "segments": (), "segment_values": ()}
    return Definition(
        id="exp",
        endpoint="rank",
        champion="a",
        metrics=metrics,
        objective=metrics[0].name,
        expected_effect=expected,
        min_effect=least,
        answer_within_us=2 * SECOND,
        **(given | more),
    )


def crowd(
    arms: Ints, odds: Floats, *, stage: str = "s1", at: Ints | None = None, segments: Sequence[str] | None = None
) -> Batch:
    """Units in the order of their coins; odds of shape (n, arms), segments as values of the only segment."""
    n = len(arms)
    texts = ["[]"] * n if segments is None else [f'["{value}"]' for value in segments]
    return Batch(
        at=np.arange(n, dtype=np.int64) if at is None else at,
        stages=np.full(n, stage),
        arms=arms.astype(np.int64),
        odds=odds,
        segments=np.array(texts, dtype=np.object_),
    )


def drawn(rng: Rng, split: ArrayLike, n: int, **how: Any) -> tuple[Flags, Batch]:
    """n units of champion and challenger: who met the challenger, and the batch. A split is one number or n."""
    pi = np.broadcast_to(np.asarray(split, dtype=np.float64), n)
    z = rng.random(n) < pi
    return z, crowd(z.astype(np.int64), np.stack([1.0 - pi, pi], axis=1), **how)


def happens(rng: Rng, rate: ArrayLike, n: int | None = None) -> Floats:
    """0 or 1 for each unit."""
    rates = np.broadcast_to(np.asarray(rate, dtype=np.float64), n if n is not None else np.shape(rate))
    return (rng.random(rates.shape) < rates).astype(np.float64)


def folded(define: Definition, batch: Batch, values: Floats) -> Evidence:
    """The evidence of a whole run on the objective."""
    evidence = Evidence(define)
    fold_values(evidence, define.metric(define.objective), batch, values)
    return evidence


def blocks(batch: Batch, values: Floats, size: int) -> Iterator[tuple[Batch, Floats, int]]:
    """A crowd as it comes: so many units at a time, and how many have come by then."""
    places = np.arange(len(batch))
    for begin in range(0, len(batch), size):
        now = (places >= begin) & (places < begin + size)
        yield batch.where(now), values[now], min(begin + size, len(batch))


def peak(evidence: Evidence, name: str = PROMOTE, *, arm: int = 1, metric: str = "", segment: str = "") -> float:
    """The highest log E of a test, looked at after every unit; 0 before the first."""
    cell = evidence.find("cell", str(arm), metric or evidence.definition.objective, segment)
    return float(cell.peak_log_e(name)) if cell is not None else 0.0


def reached(log_e: float, alpha: float) -> bool:
    return log_e >= -math.log(alpha)


def report_of(evidence: Evidence, thresholds: Thresholds = THRESHOLDS, units: int = 0) -> Report:
    return judge(evidence, thresholds, units, units)


def decided(evidence: Evidence, thresholds: Thresholds = STRICT, challengers: tuple[str, ...] = ()) -> Decision:
    """What the policy makes of it in the last stage, everything that is no statistics being passed.

    With `challengers` only those are still in the running.
    """
    share = Decimal("0.1")
    stage = StageRule(name="s1", share=share, min_duration_us=0, min_units=1, min_challenger_units=1)
    rules = Rules(
        stages=(stage,),
        automation="full",
        hold_at=5.0,
        futility=False,
        max_units=None,
        max_duration_us=1 << 60,
        on_inconclusive="champion",
    )
    challengers = challengers or evidence.definition.challengers
    begun = ReleaseState(
        endpoint="rank",
        champion="a",
        slots=whole("a"),
        status="running",
        experiment="exp",
        challenger=challengers[0],
        challengers=challengers,
    )
    report = report_of(evidence, thresholds)
    return decide(
        View(definition=evidence.definition, rules=rules, state=enter(begun, stage, 0), report=report, now_us=1)
    )


@contextmanager
def a_world(define: Definition, shards: int = 1) -> Iterator[World]:
    """A node with spools and a store, gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), define=define)
        for _ in range(shards):
            world.shard()
        try:
            yield world
        finally:
            world.close()


# What is measured.


def at_most(trap: str, what: str, hits: Sequence[bool], alpha: float, **detail: Any) -> Measured:
    """A rate that is alpha or less in truth."""
    runs = len(hits)
    return Measured(trap, what, sum(hits) / runs, slack(alpha, runs), runs, detail=detail)


def at_least(trap: str, what: str, hits: Sequence[bool], share: float, **detail: Any) -> Measured:
    """A rate that is so much or more in truth; the same benefit of the doubt."""
    runs = len(hits)
    return Measured(trap, what, sum(hits) / runs, share - (slack(share, runs) - share), runs, True, detail)


def naive(trap: str, what: str, hits: Sequence[bool], least: float = 3 * ALPHA) -> Measured:
    """That the recipe is a trap at all: what a naive system shows in the same runs."""
    return Measured(trap, f"naive: {what}", sum(hits) / len(hits), least, len(hits), True)


# Naive tests.


def z_path(z: Flags, y: Floats) -> Floats:
    """The pooled two-sample z statistic after every unit, 0 while it is not defined. Shape (n,)."""
    n = np.arange(1, len(y) + 1, dtype=np.float64)
    n1 = np.cumsum(z, dtype=np.float64)
    n0 = n - n1
    total, square, total1 = np.cumsum(y), np.cumsum(y * y), np.cumsum(np.where(z, y, 0.0))
    variance = np.maximum(square / n - (total / n) ** 2, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        score = (total1 / n1 - (total - total1) / n0) / np.sqrt(variance * (1.0 / n0 + 1.0 / n1))
    return np.where((n0 > 0) & (n1 > 0) & (variance > 1e-12), score, 0.0)


def peeked(z: Flags, y: Floats) -> bool:
    """Whether a two-sided 5 % z-test is significant at any of all looks."""
    return bool((np.abs(z_path(z, y)) > 1.96).any())


def asymptotic(z: Flags, y: Floats, planned: float = 5000.0, alpha: float = 0.05) -> bool:
    """Whether the asymptotic confidence sequence A1 with unpooled variances ever excludes no effect, from n = 2 on."""
    n = np.arange(1, len(y) + 1, dtype=np.float64)
    means, errors = [], []
    with np.errstate(divide="ignore", invalid="ignore"):
        for mine in (~z, z):
            count = np.cumsum(mine, dtype=np.float64)
            mean = np.cumsum(np.where(mine, y, 0.0)) / count
            variance = np.maximum(np.cumsum(np.where(mine, y * y, 0.0)) / count - mean**2, 0.0)
            means.append(mean)
            errors.append(variance / count)
        r2 = (-2.0 * math.log(alpha) + math.log(1.0 - 2.0 * math.log(alpha))) / planned
        s2 = n * (errors[0] + errors[1])
        width = np.sqrt(s2 * 2.0 * (n * r2 + 1.0) / (n**2 * r2) * np.log(np.sqrt(n * r2 + 1.0) / alpha))
        outside = np.abs(means[1] - means[0]) > width
    return bool((outside & (s2 > 0.0)).any())


def difference(z: Flags, y: Floats) -> float:
    """The naive effect: challenger's mean less champion's, whenever they came."""
    return float(y[z].mean() - y[~z].mean())
