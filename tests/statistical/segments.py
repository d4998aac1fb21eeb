"""T15 twenty segments, one of them harmed; T16 two hundred tiny ones; T17 an effect that is only novelty."""

from __future__ import annotations

from typing import Any

import numpy as np
from msgspec.structs import replace

from benchmarks.stats_common import Measured
from gateway.assignment.segments import SegmentReader
from gateway.evidence.batch import Ints
from gateway.evidence.cells import Evidence
from gateway.evidence.definition import HARM, PROMOTE, Definition
from gateway.evidence.fold import fold_values
from gateway.evidence.report import CYCLE, LAST_CYCLE, NOT_SEGMENTS, OVERALL
from gateway.plan import SegmentPlan
from tests.statistical.rig import (
    STRICT,
    THRESHOLDS,
    Rng,
    Trapped,
    at_least,
    at_most,
    binary,
    blocks,
    crowd,
    decided,
    drawn,
    experiment,
    folded,
    happens,
    naive,
    peak,
    peeked,
    reached,
    report_of,
)

BOUGHT = binary()
LEVEL = replace(THRESHOLDS, alpha_rollback=0.05)  # T15: any flag in 5 % of the experiments at most
HURT = 5  # the segment of Zipf's twenty with about five per cent of the traffic
DAY = 86_400_000_000


def cut_by(count: int, **more: Any) -> Definition:
    values = tuple(f"v{number}" for number in range(count))
    return experiment(BOUGHT, segments=("place",), segment_values=(values,), **more)


def places(rng: Rng, count: int, n: int) -> tuple[Ints, list[str]]:
    weight = 1.0 / (np.arange(count) + 1.0)
    which = rng.choice(count, n, p=weight / weight.sum())
    return which, [f"v{place}" for place in which.tolist()]


def flagged(evidence: Evidence) -> list[str]:
    tests = report_of(evidence, LEVEL).tests
    return [test.segment for test in tests if test.name == HARM and test.segment not in NOT_SEGMENTS and test.met]


def t15(runs: int, seed: int, n: int) -> Trapped:
    """Twenty segments and no effect anywhere."""
    rng, define = np.random.default_rng(seed), cut_by(20)
    any_flag, better, fooled = [], [], []
    for _ in range(runs):
        which, names = places(rng, 20, n)
        z, batch = drawn(rng, 0.5, n, segments=names)
        y = happens(rng, 0.2, n)
        evidence = folded(define, batch, y)
        any_flag.append(bool(flagged(evidence)))
        segments = evidence.segments_of(1, BOUGHT)
        better.append(any(reached(peak(evidence, PROMOTE, segment=one), 0.05 / 21) for one in segments))
        fooled.append(any(peeked(z[which == place], y[which == place]) for place in range(20)))
    return [
        at_most("T15", "any segment called harmed, family level .05", any_flag, 0.05),
        at_most("T15", "any segment called better, family level .05", better, 0.05),
        naive("T15", "z-test in every segment at every unit", fooled, 0.6),
    ]


def t15_harmed(runs: int, seed: int) -> Trapped:
    """One segment of five per cent drops from .20 to .10 while the rest gains: found, and no promotion."""
    rng, define, n = np.random.default_rng(seed), cut_by(20, expected=0.03), 40_000
    found, vetoed, tempted, others = [], [], [], []
    for _ in range(runs):
        which, names = places(rng, 20, n)
        z, batch = drawn(rng, 0.5, n, segments=names)
        hurt = which == HURT
        y = happens(rng, np.where(z, np.where(hurt, 0.10, 0.23), 0.20))
        evidence = folded(define, batch, y)
        found.append(f"place=v{HURT}" in flagged(evidence))
        others.append(bool(set(flagged(evidence)) - {f"place=v{HURT}"}))
        promote = report_of(evidence, LEVEL).test("bought", PROMOTE)
        assert promote is not None
        tempted.append(promote.met)
        vetoed.append(promote.met and decided(evidence, replace(STRICT, alpha_rollback=0.05)).kind != "promote")
    share = {"traffic": float(np.mean(hurt))}
    return [
        at_least("T15", "the harmed segment found within 40,000 units", found, 0.95, **share),
        at_most("T15", "another segment called harmed, .05", others, 0.05),
        at_least("T15", "promotion vetoed although everybody together gains", vetoed, 0.95),
        naive("T15", "everybody together is better: a pooled test promotes", tempted, 0.9),
    ]


def t16(runs: int, seed: int) -> Trapped:
    """Two hundred segments, most of fewer than twenty units; and values that nobody declared."""
    rng, define, n = np.random.default_rng(seed), cut_by(200), 3000
    flags, sizes, cells = [], [], []
    reader = SegmentReader.of(SegmentPlan(name="place", header="x-place", values=define.segment_values[0]))
    for _ in range(runs):
        which = np.minimum(rng.zipf(1.3, n), 5000) - 1
        names = [reader.read({b"x-place": f"v{place}".encode()}) for place in which.tolist()]
        _, batch = drawn(rng, 0.5, n, segments=names)
        evidence = folded(define, batch, happens(rng, 0.2, n))
        flags.append(bool(flagged(evidence)))
        states = evidence.take_changes()
        cells.append(len(evidence.segments_of(1, BOUGHT)))
        sizes.append(max(len(state) for key, state in states.items() if key.startswith("cell")))
        small = [evidence.find("cell", "1", "bought", one).n for one in evidence.segments_of(1, BOUGHT)]
    return [
        at_most("T16", "any segment called harmed, family level .05", flags, 0.05),
        Measured(
            "T16", "cells beside the overall one: the declared values and `other`", float(max(cells)), 201.0, runs
        ),
        Measured("T16", "bytes of one cell", float(max(sizes)), 1024.0, runs),
        Measured("T16", "share of segments below 20 units", float(np.mean(np.array(small) < 20)), 0.5, 1, True),
    ]


def t17(runs: int, seed: int) -> Trapped:
    """+.05 in the first of ten days and nothing after; a business cycle is a week."""
    rng, n = np.random.default_rng(seed), 20_000
    define = experiment(BOUGHT, expected=0.03, cycle_us=7 * DAY)
    early, late, tempted, decays = [], [], [], []
    at = np.arange(n, dtype=np.int64) * (10 * DAY // n) + DAY
    for _ in range(runs):
        z, batch = drawn(rng, 0.5, n, at=at)
        y = happens(rng, 0.1 + 0.05 * (z & (np.arange(n) < n // 10)))
        evidence, promoted, tempting = Evidence(define), [], False
        for some, told, end in blocks(batch, y, 1000):
            fold_values(evidence, BOUGHT, some, told)
            tempting |= end <= n // 10 and reached(peak(evidence), STRICT.alpha)
            if decided(evidence).kind == "promote":
                promoted.append(end)
        early.append(any(end < 7 * n // 10 for end in promoted))
        late.append(bool(promoted))
        tempted.append(tempting)
        decays.append(_effect(evidence, LAST_CYCLE) > _effect(evidence, CYCLE))
    return [
        Measured("T17", "promoted before a whole cycle", sum(early) / runs, 0.0, runs),
        at_most("T17", "promoted at all", late, 0.05),
        at_least("T17", "effect of the first week above that of the rest", decays, 0.8),
        naive("T17", "evidence reached .01 within the first tenth", tempted, 0.3),
    ]


def _effect(evidence: Evidence, segment: str) -> float:
    estimate = report_of(evidence).estimate("bought", segment)
    return estimate.estimate if estimate is not None else 0.0


def t17_turn(runs: int, seed: int) -> Trapped:
    """+.20 in the first cycle, -.08 in the second: the sum is good, the last cycle was worse, so nobody is promoted."""
    rng, n = np.random.default_rng(seed), 8000
    define = experiment(BOUGHT, expected=0.1, cycle_us=DAY)
    at = DAY + np.arange(n, dtype=np.int64) * (2 * DAY) // n
    blocked, tempted = [], []
    for _ in range(runs):
        z, batch = drawn(rng, 0.5, n, at=at)
        y = happens(rng, 0.2 + np.where(z, np.where(np.arange(n) < n // 2, 0.20, -0.08), 0.0))
        after = crowd(np.array([0, 1]), np.full((2, 2), 0.5), at=np.array([3 * DAY, 3 * DAY + 1]))
        evidence = folded(define, batch, y)
        fold_values(evidence, BOUGHT, after, np.zeros(2))
        promote = report_of(evidence, STRICT).test("bought", PROMOTE, OVERALL)
        assert promote is not None
        tempted.append(promote.met)
        blocked.append(decided(evidence).kind != "promote")
    return [
        at_least("T17", "no promotion after a cycle that was worse", blocked, 0.99),
        naive("T17", "the evidence of both cycles together is enough", tempted, 0.5),
    ]
