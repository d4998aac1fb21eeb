"""T18 a bandit under drift, T19 six arms."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.stats_common import Measured
from gateway.evidence.batch import Batch, Floats, Ints
from gateway.evidence.cells import Evidence
from gateway.evidence.definition import HARM
from gateway.evidence.fold import fold_values
from tests.statistical.rig import (
    ALPHA,
    ALPHA_ROLLBACK,
    STRICT,
    Rng,
    Trapped,
    at_least,
    at_most,
    binary,
    blocks,
    crowd,
    decided,
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

BOUGHT = binary()
UNITS, BATCH, FLOOR = 10_000, 50, 0.05
FOUR, SIX = ("b", "c"), ("b", "c", "d", "e", "f")


def thompson(rng: Rng, rate: Floats, arms: int = 3) -> tuple[Batch, Floats]:
    """Shares by Thompson sampling on what was folded before each batch of 50, none below the floor; equal arms."""
    n = len(rate)
    which, odds, y = np.empty(n, dtype=np.int64), np.empty((n, arms)), np.empty(n)
    good, bad = np.ones(arms), np.ones(arms)
    for begin in range(0, n, BATCH):
        part = slice(begin, begin + BATCH)
        best = rng.beta(good, bad, (100, arms)).argmax(axis=1)
        shares = FLOOR + (1.0 - arms * FLOOR) * np.bincount(best, minlength=arms) / 100
        odds[part] = shares
        which[part] = rng.choice(arms, BATCH, p=shares)
        y[part] = happens(rng, rate[part])
        good += np.bincount(which[part], weights=y[part], minlength=arms)
        bad += np.bincount(which[part], weights=1.0 - y[part], minlength=arms)
    return crowd(which, odds), y


def t18(runs: int, seed: int) -> Trapped:
    """Three equal arms, a base that rises from .10 to .25, shares that chase the luck."""
    rng, define = np.random.default_rng(seed), experiment(BOUGHT, expected=0.03, challengers=FOUR)
    promoted, rolled_back, fooled, at_the_end, alarms = [], [], [], [], []
    for _ in range(runs):
        batch, y = thompson(rng, np.linspace(0.10, 0.25, UNITS))
        evidence = folded(define, batch, y)
        evidence.fold_coins(batch.arms.tolist(), batch.odds.tolist())
        promoted.append(any(reached(peak(evidence, arm=arm), ALPHA / 2) for arm in (1, 2)))
        rolled_back.append(any(reached(peak(evidence, HARM, arm=arm), ALPHA_ROLLBACK) for arm in (1, 2)))
        alarms.append(report_of(evidence).sample_ratio_alarm)
        pairs = [(batch.arms == 0) | (batch.arms == arm) for arm in (1, 2)]
        fooled.append(any(peeked(batch.arms[pair] > 0, y[pair]) for pair in pairs))
        at_the_end.append(any(abs(z_path(batch.arms[pair] > 0, y[pair])[-1]) > 1.96 for pair in pairs))
    return [
        at_most("T18", "any false promotion at .05", promoted, ALPHA),
        # Each challenger's harm has the whole level: dropping one of two equals is no error of the experiment's.
        at_most("T18", "any false rollback at .01 for each", rolled_back, 2 * ALPHA_ROLLBACK),
        at_most("T18", "sample ratio alarm at .001", alarms, 0.001),
        naive("T18", "z-test at every unit", fooled, 0.5),
        naive("T18", "z-test once, at the end", at_the_end),
    ]


def even(rng: Rng, n: int, arms: int = 6) -> tuple[Ints, Batch]:
    which = rng.integers(0, arms, n)
    return which, crowd(which, np.full((n, arms), 1.0 / arms))


def t19(runs: int, seed: int) -> Trapped:
    """Six equal arms: is any of five challengers promoted?"""
    rng, define = np.random.default_rng(seed), experiment(BOUGHT, expected=0.03, challengers=SIX)
    promoted, fooled = [], []
    for _ in range(runs):
        which, batch = even(rng, UNITS)
        y = happens(rng, 0.1, UNITS)
        evidence = folded(define, batch, y)
        promoted.append(any(reached(peak(evidence, arm=arm), ALPHA / 5) for arm in range(1, 6)))
        pairs = [(which == 0) | (which == arm) for arm in range(1, 6)]
        fooled.append(any(bool((z_path(which[pair] > 0, y[pair]) > 1.96).any()) for pair in pairs))
    return [
        at_most("T19", "any false promotion at .05 among five", promoted, ALPHA),
        naive("T19", "z-test for the better at every unit", fooled, 0.5),
    ]


def t19_best(runs: int, seed: int) -> Trapped:
    """One of six is better by 20 %: it is found, and no other."""
    rng = np.random.default_rng(seed)
    base, better = 0.3, 0.36
    define = experiment(BOUGHT, expected=better - base, challengers=SIX)
    m = (base + better) / 2
    information = sum(p * math.log(p / m) + (1 - p) * math.log((1 - p) / (1 - m)) for p in (base, better)) / 2
    bound = math.log(1 / STRICT.alpha) / information  # of one pair, in its units
    limit = 2 * bound * math.log(5 / STRICT.alpha) / math.log(1 / STRICT.alpha)
    passed, wrong, units = [], [], []
    for _ in range(runs):
        which, batch = even(rng, round(9 * limit))
        y = happens(rng, np.where(which == 3, better, base))
        evidence, last = Evidence(define), 0
        chosen, running = "", define.challengers
        for some, told, end in blocks(batch, y, round(0.15 * limit)):
            fold_values(evidence, BOUGHT, some, told)
            decision, last = decided(evidence, STRICT, running), end
            chosen = decision.variant if decision.kind == "promote" else ""
            if decision.kind == "drop":
                running = tuple(name for name in running if name != decision.variant)
            if chosen:
                break
        in_pair = int(((which[:last] == 0) | (which[:last] == 3)).sum())
        wrong.append(chosen not in ("", "d"))
        passed.append(chosen == "d")
        units.append(in_pair)
    return [
        Measured(
            "T19",
            "units of the winner and the champion until promoted / limit",
            float(np.mean(units)) / limit,
            1.0,
            runs,
        ),
        at_least("T19", "the best promoted within three times the limit", passed, 0.99),
        at_most("T19", "another promoted", wrong, STRICT.alpha),
    ]
