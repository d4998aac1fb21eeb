"""T20 guardrails on latency, T21 non-inferiority: proof of "not worse by more", and of nothing less."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from benchmarks.stats_common import Measured
from gateway.evidence.batch import Floats
from gateway.evidence.cells import Evidence
from gateway.evidence.definition import HARM, NON_INFERIOR, MetricDefinition
from gateway.evidence.fold import fold_values
from tests.statistical.rig import (
    THRESHOLDS,
    Flags,
    Rng,
    Trapped,
    at_least,
    at_most,
    binary,
    blocks,
    decided,
    drawn,
    experiment,
    happens,
    naive,
    reached,
    report_of,
    z_path,
)

BOUGHT = binary()
HARDLY = 0.001  # a relative margin that asks whether it is slower at all
LIMIT_US = 200_000


def latency(name: str, **margin: Any) -> MetricDefinition:
    return MetricDefinition(name=name, type="latency", source="gateway", increase=False, limit_us=LIMIT_US, **margin)


def answers(rng: Rng, z: Flags, factor: float) -> Floats:
    """Microseconds: lognormal(4, .6) in milliseconds, the challenger's times the factor."""
    return rng.lognormal(4.0, 0.6, len(z)) * np.where(z, factor, 1.0) * 1000.0


def t20(runs: int, seed: int) -> Trapped:
    """A challenger slower by 16 %: found at p99 by 9,000 requests; an equal one passes a margin of 16 %."""
    rng, n, block = np.random.default_rng(seed), 30_000, 1000
    slower, pass_ = latency("slower", relative_margin=HARDLY), latency("pass", relative_margin=0.16)
    define = experiment(BOUGHT, slower, pass_)
    at_p99, at_any, passed, false = [], [], [], []
    for _ in range(runs):
        z, batch = drawn(rng, 0.5, n)
        times = np.stack([answers(rng, z, 1.16), answers(rng, z, 1.0)], axis=1)
        evidence, tail, alarm, good = Evidence(define), n, n, n
        for some, took, end in blocks(batch, times, block):
            fold_values(evidence, slower, some, took[:, 0])
            fold_values(evidence, pass_, some, took[:, 1])
            at_99 = evidence.find("quantiles", "1", slower.name).cell(0.99)
            tail = min(tail, end if reached(at_99.peak_log_e(HARM), 0.05) else n)
            alarm = min(alarm, end if _met(evidence, "slower", HARM) else n)
            good = min(good, end if _met(evidence, "pass", NON_INFERIOR) else n)
            if max(tail, alarm, good) < n:
                break
        at_p99.append(tail)
        at_any.append(alarm)
        passed.append(good)
        false.append(_met(evidence, "pass", HARM))
    return [
        Measured("T20", "median requests until x1.16 is flagged at p99, .05", float(np.median(at_p99)), 9000.0, runs),
        Measured("T20", "median requests until x1.16 rolls back, .01", float(np.median(at_any)), 9000.0, runs),
        Measured(
            "T20", "median requests until x1.00 passes at a margin of 16 %", float(np.median(passed)), 22_000.0, runs
        ),
        at_most("T20", "an equal challenger rolled back, .01", false, 0.01),
    ]


def _met(evidence: Evidence, metric: str, name: str) -> bool:
    test = report_of(evidence).test(metric, name)
    return test is not None and test.met


def t20_timeouts(runs: int, seed: int) -> Trapped:
    """5 % of the challenger's requests never end: no latency is known of them, and that is the worst latency."""
    rng, n = np.random.default_rng(seed), 8000
    quantiles, limit = latency("quantiles", relative_margin=0.05), latency("limit", margin=0.02)
    errors = MetricDefinition(name="errors", type="binary", source="gateway", increase=False, margin=0.01)
    define = experiment(BOUGHT, quantiles, limit, errors)
    found, gone, fooled = [], [], []
    for _ in range(runs):
        z, batch = drawn(rng, 0.5, n)
        known = ~(z & (rng.random(n) < 0.05))
        times = np.where(known, answers(rng, z, 0.98), np.nan)
        evidence = Evidence(define)
        for metric in (quantiles, limit):
            fold_values(evidence, metric, batch, times)
        fold_values(evidence, errors, batch, np.where(known, 0.0, np.nan))
        found.append(
            _met(evidence, "quantiles", HARM) and _met(evidence, "limit", HARM) and _met(evidence, "errors", HARM)
        )
        gone.append(decided(evidence, THRESHOLDS).kind == "rollback")
        mean = z_path(z[known], times[known])
        fooled.append(bool(mean[-1] < 1.96))
    return [
        at_least("T20", "time-outs found by quantiles, limit and errors within 8,000", found, 0.95),
        at_least("T20", "rolled back", gone, 0.95),
        naive("T20", "mean of the known latencies is not higher", fooled, 0.5),
    ]


def t21(runs: int, seed: int) -> Trapped:
    """A rate of .9 under a relative margin of 2 %: a loss of 1 % passes in time, one of exactly 2 % does not."""
    rng, n, block = np.random.default_rng(seed), 80_000, 2000
    rate = binary("rate", relative_margin=0.02)
    define = experiment(BOUGHT, rate)
    # The distance to the margin is .009 at a variance of .09 and a half: no test of level .05 is faster.
    limit = math.log(20.0) / (0.25 * 0.009**2 / (2 * 0.09))
    units, at_margin, fooled = [], [], []
    for _ in range(runs):
        z, batch = drawn(rng, 0.5, n)
        evidence, passed_at = Evidence(define), 0
        for part, told, end in blocks(batch, happens(rng, np.where(z, 0.891, 0.9)), block):
            fold_values(evidence, rate, part, told)
            passed_at = end
            if _met(evidence, "rate", NON_INFERIOR):
                break
        units.append(passed_at)
        some = np.arange(n) < 20_000
        y = happens(rng, np.where(z, 0.882, 0.9))[some]
        evidence = Evidence(define)
        fold_values(evidence, rate, batch.where(some), y)
        at_margin.append(reached(evidence.cell(1, rate).peak_log_e(NON_INFERIOR), 0.05))
        fooled.append(bool((np.abs(z_path(z[some], y)) < 1.96)[999::1000].any()))
    return [
        Measured("T21", "mean units until a loss of 1 % passes / limit", float(np.mean(units)) / limit, 1.6, runs),
        at_most("T21", "passed at exactly the margin, at any unit, .05", at_margin, 0.05),
        naive("T21", "not significantly worse at one of twenty looks, taken for a pass", fooled, 0.5),
    ]
