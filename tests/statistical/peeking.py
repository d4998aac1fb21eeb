"""T1 peeking, T3 Simpson, T4 the start of a ramp, T25 a client that stops when it likes what it sees."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.stats_common import Measured
from gateway.evidence.cells import Evidence
from gateway.evidence.definition import HARM
from gateway.evidence.fold import fold_values
from tests.statistical.rig import (
    ALPHA,
    ALPHA_ROLLBACK,
    STRICT,
    Trapped,
    asymptotic,
    at_least,
    at_most,
    binary,
    decided,
    difference,
    drawn,
    experiment,
    folded,
    happens,
    naive,
    peak,
    peeked,
    reached,
    report_of,
    z_path,
)

UNITS = 10_000
BOUGHT = binary()
RAMP = (0.01, 0.05, 0.2, 0.5)


def t1(runs: int, seed: int, rate: float) -> Trapped:
    """Equal arms at 50 %, a verdict asked for after every one of 10^4 outcomes."""
    rng, define = np.random.default_rng(seed), experiment(BOUGHT)
    promoted, rolled_back, fooled = [], [], []
    for _ in range(runs):
        z, batch = drawn(rng, 0.5, UNITS)
        y = happens(rng, rate, UNITS)
        evidence = folded(define, batch, y)
        promoted.append(reached(peak(evidence), ALPHA))
        rolled_back.append(reached(peak(evidence, HARM), ALPHA_ROLLBACK))
        fooled.append(peeked(z, y))
    return [
        at_most("T1", "false promotion at .05, looking at every unit", promoted, ALPHA),
        at_most("T1", "false rollback at .01", rolled_back, ALPHA_ROLLBACK),
        naive("T1", "z-test at every unit", fooled),
    ]


def t3(runs: int, seed: int, effect: float) -> Trapped:
    """The split grows while the base rises: the pooled challenger looks better than it is."""
    n = 20_000
    rng, define = np.random.default_rng(seed), experiment(BOUGHT)
    split, base = np.repeat(RAMP, n // 4), np.linspace(0.1, 0.2, n)
    promoted, rolled_back, fooled, estimates, pooled = [], [], [], [], []
    for _ in range(runs):
        z, batch = drawn(rng, split, n)
        y = happens(rng, base + effect * z)
        evidence = folded(define, batch, y)
        promoted.append(reached(peak(evidence), ALPHA if effect == 0.0 else STRICT.alpha))
        rolled_back.append(reached(peak(evidence, HARM), ALPHA_ROLLBACK))
        estimate = report_of(evidence).estimate("bought")
        assert estimate is not None
        estimates.append(estimate.estimate)
        pooled.append(difference(z, y))
        fooled.append(bool((z_path(z, y) > 1.96).any()) if effect else peeked(z, y))
    bias = abs(float(np.mean(estimates)) - effect) / (float(np.std(estimates)) / math.sqrt(runs))
    measured = [
        Measured("T3", "bias of the estimate, in standard errors of its mean", bias, 3.0, runs),
        naive(
            "T3",
            "pooled z-test for the challenger at every unit" if effect else "pooled z-test at every unit",
            fooled,
            0.5,
        ),
        Measured("T3", "naive: mean pooled effect", float(np.mean(pooled)), 0.005, runs, True),
    ]
    if effect == 0.0:
        return [
            at_most("T3", "false promotion at .05", promoted, ALPHA),
            at_most("T3", "false rollback at .01", rolled_back, ALPHA_ROLLBACK),
            *measured,
        ]
    return [
        at_most("T3", "promoted although worse, at .01", promoted, 0.001),
        at_least("T3", "a negative estimate at the end", [one < 0.0 for one in estimates], 0.99),
        *measured,
    ]


def t4(runs: int, seed: int) -> Trapped:
    """Equal arms of 1 % at a split of 1 %; and a challenger without any success in its first 100 units."""
    rng, define = np.random.default_rng(seed), experiment(BOUGHT, expected=0.005)
    wrong, fooled, narrow = [], [], []
    for run in range(runs):
        z, batch = drawn(rng, 0.01, UNITS)
        y = happens(rng, 0.01, UNITS)
        if run % 2:
            y[np.flatnonzero(z)[:100]] = 0.0
        evidence = folded(define, batch, y)
        up, down = peak(evidence), peak(evidence, HARM)
        wrong.append(reached(up, ALPHA) or reached(down, ALPHA_ROLLBACK))
        estimate = report_of(evidence).estimate("bought")
        assert estimate is not None
        width = estimate.upper - estimate.lower
        narrow.append(not (math.isfinite(width) and 0.005 < width <= 2.0 and not estimate.better))
        fooled.append(asymptotic(z, y))
    return [
        at_most("T4", "any decision, promotion at .05 or rollback at .01", wrong, ALPHA + ALPHA_ROLLBACK),
        Measured("T4", "intervals that are not wide and finite", sum(narrow) / runs, 0.0, runs),
        naive("T4", "asymptotic sequence from the second unit", fooled),
    ]


def t25(runs: int, seed: int) -> Trapped:
    """A client stops the experiment at the luckiest moment for the challenger, and reads the interval."""
    rng, define = np.random.default_rng(seed), experiment(BOUGHT, expected=0.05)
    excluded, fooled, promoted = [], [], []
    for _ in range(runs):
        z, batch = drawn(rng, 0.5, UNITS)
        y = happens(rng, 0.3, UNITS)
        path = np.abs(z_path(z, y))
        evidence, before, hit, won = Evidence(define), 0, False, False
        # The luckiest moment of all, of those after 10, after 100, after 1,000 units.
        for stop in sorted({int(start + path[start:].argmax()) + 1 for start in (1, 10, 100, 1000)}):
            now = np.arange(UNITS) < stop
            fold_values(evidence, BOUGHT, batch.where(now & (np.arange(UNITS) >= before)), y[before:stop])
            before = stop
            estimate = report_of(evidence).estimate("bought")
            assert estimate is not None
            hit |= estimate.better or estimate.worse
            won |= decided(evidence).kind == "promote"
        excluded.append(hit)
        promoted.append(won)
        fooled.append(bool((path > 1.96)[9:].any()))
    return [
        at_most("T25", "95 % intervals without 0 at the luckiest of moments", excluded, ALPHA),
        at_most("T25", "promoted by the policy at that moment, alpha .01", promoted, STRICT.alpha),
        naive("T25", "fixed-n intervals without 0 at some moment from n = 10", fooled),
    ]
