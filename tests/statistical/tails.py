"""T11 heavy tails, T12 tiny counts, T14 ties, T23 small differences on a large offset."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np

from benchmarks.stats_common import Measured
from gateway.evidence.batch import Floats
from gateway.evidence.cells import Evidence
from gateway.evidence.definition import HARM, NON_INFERIOR, MetricDefinition, Scale
from gateway.evidence.fold import fold_values
from tests.statistical.rig import (
    ALPHA,
    ALPHA_ROLLBACK,
    SECOND,
    Rng,
    Trapped,
    a_world,
    asymptotic,
    at_most,
    binary,
    crowd,
    drawn,
    experiment,
    folded,
    naive,
    peak,
    reached,
    report_of,
)

UNITS = 10_000
TAILS: dict[str, Callable[[Rng, int], Floats]] = {
    "lognormal": lambda rng, n: rng.lognormal(0.0, 2.0, n),
    "pareto 1.5": lambda rng, n: rng.pareto(1.5, n) + 1.0,
    "pareto 2.1": lambda rng, n: rng.pareto(2.1, n) + 1.0,
    "mostly zero": lambda rng, n: np.where(rng.random(n) < 0.02, rng.lognormal(0.0, 2.0, n), 0.0),
}


def revenue(scale: Scale) -> MetricDefinition:
    return MetricDefinition(
        name="revenue", type="unbounded", source="outcome", increase=True, scale=scale, missing="zero"
    )


def t11(runs: int, seed: int, tail: str, scale: Scale, split: float) -> Trapped:
    """Equal arms with hardly any mean; the scale is taken from the champion's past."""
    rng, define = np.random.default_rng(seed), experiment(revenue(scale), expected=0.02)
    promoted, rolled_back, fooled, claimed = [], [], [], 0
    for _ in range(runs):
        z, batch = drawn(rng, split, UNITS)
        y = TAILS[tail](rng, UNITS)
        evidence = folded(define, batch, y)
        promoted.append(reached(peak(evidence), ALPHA))
        rolled_back.append(reached(peak(evidence, HARM), ALPHA_ROLLBACK))
        means = [one for one in report_of(evidence).estimates if one.method == "asymptotic"]
        claimed += len(means) != 1 or means[0].better or means[0].worse
        fooled.append(asymptotic(z, y))
    measured = [
        at_most("T11", "false promotion at .05", promoted, ALPHA),
        at_most("T11", "false rollback at .01", rolled_back, ALPHA_ROLLBACK),
        Measured("T11", "means that are not labelled asymptotic, or that claim something", float(claimed), 0.0, runs),
    ]
    return measured + ([naive("T11", "asymptotic sequence of the mean", fooled)] if split < 0.1 else [])


def t12(runs: int, seed: int) -> Trapped:
    """Fewer than 30 units: all zero, all one, an arm empty. Undecided, finite, no exception."""
    rng = np.random.default_rng(seed)
    define = experiment(
        binary(), MetricDefinition(name="errors", type="binary", source="gateway", increase=False, margin=0.01)
    )
    wrong, cases = [], 0
    for n, split in itertools.product(range(1, 30), (0.01, 0.1, 0.5)):
        for value, arms in itertools.product((0.0, 1.0), ("both", "champion only", "challenger only")):
            z, batch = drawn(rng, split, n)
            which = {"champion only": np.zeros(n), "challenger only": np.ones(n)}.get(arms, z).astype(np.int64)
            evidence = Evidence(define)
            batch = crowd(which, batch.odds)
            for metric in define.metrics:
                fold_values(evidence, metric, batch, np.full(n, value))
            cases += 1
            wrong += [f"{arms} {value} n={n} split={split}: {what}" for what in _odd(evidence)]
    return [Measured("T12", "cases with a verdict or a number that is none", float(len(wrong)), 0.0, cases,
                     detail={"first": wrong[:3]})]  # fmt: skip


def _odd(evidence: Evidence) -> list[str]:
    report = report_of(evidence)
    intervals = [
        f"{one.metric} in [{one.lower}, {one.upper}]"
        for one in report.estimates
        if not -1.0 <= one.lower <= one.estimate <= one.upper <= 1.0 or one.better or one.worse
    ]
    tests = [f"log E of {test.name} is {test.log_e}" for test in report.tests if not math.isfinite(test.log_e)]
    return [*intervals, *tests, *([] if report.verdict == "undecided" else [report.verdict])]


def t14(runs: int, seed: int) -> Trapped:
    """Whole milliseconds, six in ten of them equal: by ranks, by quantiles and by a limit; then one constant value."""
    rng = np.random.default_rng(seed)
    ranks = MetricDefinition(name="ms", type="unbounded", source="outcome", increase=False, scale="rank")
    quantiles = MetricDefinition(
        name="slow", type="latency", source="gateway", increase=False, limit_us=1, relative_margin=0.05
    )
    limit = MetricDefinition(
        name="limit", type="latency", source="gateway", increase=False, limit_us=12_000, margin=0.02
    )
    define, n = experiment(ranks, quantiles, limit), 6000
    promoted, rolled_back, sure = [], [], 0
    for run in range(runs):
        _, batch = drawn(rng, 0.5, n)
        ms = np.where(rng.random(n) < 0.6, 8.0, np.round(rng.lognormal(2.0, 0.5, n)))
        evidence = Evidence(define)
        for metric, values in ((ranks, ms), (quantiles, 1000.0 * ms), (limit, 1000.0 * ms)):
            fold_values(evidence, metric, batch, values)
        promoted.append(reached(peak(evidence), ALPHA))
        guard = evidence.find("quantiles", "1", quantiles.name)
        harms = peak(evidence, HARM), guard.peak_log_e(HARM), peak(evidence, HARM, metric="limit")
        rolled_back.append(any(reached(one, ALPHA_ROLLBACK) for one in harms))
        if run % 10 == 0:
            constant = Evidence(define)
            for metric in (ranks, quantiles, limit):
                fold_values(constant, metric, batch, np.full(n, 8.0 if metric is ranks else 8000.0))
            tests = [test for test in report_of(constant).tests if test.name != NON_INFERIOR]
            sure += any(test.log_e >= math.log(20.0) for test in tests)
    return [
        at_most("T14", "false promotion at .05 by ranks", promoted, ALPHA),
        at_most("T14", "false rollback by any of three tests at .01", rolled_back, 3 * ALPHA_ROLLBACK),
        Measured("T14", "E of 20 or more on a constant", float(sure), 0.0, runs // 10),
    ]


def t23(_: int, seed: int) -> Trapped:
    """A standard normal on top of 1e9, from eight workers: the same numbers as without the offset, in any order."""
    rng, n, offset = np.random.default_rng(seed), 2000, 1e9
    y = np.clip(rng.normal(size=n), -7.5, 7.5) + offset  # what the metric can hold: steps of 1e-7
    z = rng.random(n) < 0.5
    states, variances = [], []
    for low, shards in ((offset, 8), (offset, 1), (0.0, 8)):
        metric = MetricDefinition(
            name="level", type="bounded", source="outcome", increase=True,
            low=low - 8.0, high=low + 8.0, window_us=60 * SECOND,
        )  # fmt: skip
        order = rng.permutation(n) if shards > 1 else np.arange(n)
        with a_world(experiment(metric, expected=0.5), shards=shards) as world:
            for unit in range(n):
                shard = int(order[unit]) % shards
                value = float(y[unit] - offset + low)
                decision = world.whole(unit, bool(z[unit]), None, shard=shard)
                world.outcome(decision, value, metric="level", shard=shard)
                world.clock.advance(0.001)
            world.settle()
            cell = world.engine.evidence["exp"].find("cell", "1", "level", "")
            states.append(cell.state())
            variances.append([256.0 * variance for variance in cell.variances])
    errors = [abs(states[0]["moments"][name] - states[2]["moments"][name]) for name in ("v", "sum_psi", "residual")]
    true = [float(y[~z].var(ddof=1)), float(y[z].var(ddof=1))]
    off = [abs(one - other) for each in variances for one, other in zip(each, true, strict=True)]
    return [
        Measured("T23", "states that depend on the sharding", float(states[0] != states[1]), 0.0, 3),
        Measured("T23", "error of a sum by the offset", max(errors), 1e-6, 3),
        Measured("T23", "error of a variance", max(off), 1e-6, 3),
        Measured("T23", "naive: error of the variance by a sum of squares", abs(_by_squares(y) - 1.0), 0.5, 1, True),
    ]


def _by_squares(y: Floats) -> float:
    """What loses all precision at 1e9."""
    return (float(np.sum(y * y)) - float(np.sum(y)) ** 2 / len(y)) / (len(y) - 1)
