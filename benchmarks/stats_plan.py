"""The proof `statistics`, case by case: which part of which goal, and how many simulated experiments it gets.

Error rates get 10,000 runs: 2.33 standard errors of a rate of .05 are then .0051. Where a mean is measured, the runs
are enough for a standard error of 1 % (each record's `detail` says what it was). Every case draws from its own seed: it
gives the same numbers alone and among others, before and after a kill (timings apart).
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from benchmarks.stats_common import Measured, Rng, slack
from benchmarks.stats_error import ALPHA, OUTCOMES, SPLITS, g1, g1_rate, g1_summary, g7, g8, g10, g16
from benchmarks.stats_interval import g6
from benchmarks.stats_monitor import g9, g9_false, g9_found, g11
from benchmarks.stats_power import G2_LIMITS, OURS, g2, g2_at, g3, g4, g4_effect, g4_false, g5, g12, g12_at
from benchmarks.stats_speed import g13, g14

__all__ = ["CASES", "GOALS", "OURS", "RUNS", "goal_of", "measure", "summary"]

Goal = Callable[[int, Rng], list[Measured]]

GOALS: dict[str, Goal] = {
    "G1": g1,
    "G2": g2,
    "G3": g3,
    "G4": g4,
    "G5": g5,
    "G6": g6,
    "G7": g7,
    "G8": g8,
    "G9": g9,
    "G10": g10,
    "G11": g11,
    "G12": g12,
    "G13": g13,
    "G14": g14,
    "G16": g16,
}
"""The goals as `bench_statistics` measures them: one number of runs for everything."""

RUNS = {
    "G1": 10_000,  # each of 35 cells
    "G2": 8000,
    "G3": 10_000,
    "G4/effect": 5000,
    "G4/equal": 10_000,
    "G5": 5000,
    "G6": 10_000,  # 400 of them for widths
    "G7": 10_000,
    "G8": 10_000,
    "G9/false": 10_000,
    "G9/found": 3000,
    "G10": 10_000,
    "G11": 40_000,  # a quarter of them each: run lengths are exponential, so 10,000 give 1 %
    "G12": 8000,
    "G13": 5,  # timings; best of five
    "G14": 2000,  # a quarter of them
    "G16": 200,
}
"""Simulated experiments of each goal, or part of one."""

SEED = 1


def _g1_cell(outcome: str, split: str) -> Goal:
    def cell(runs: int, rng: Rng) -> list[Measured]:
        rate = g1_rate(outcome, split, runs, rng)
        return [Measured("G1", f"promoted although equal: {outcome}, {split}", rate, slack(ALPHA, runs), runs)]

    return cell


def _one(part: Callable[[float, int, Rng], Measured], at: float) -> Goal:
    return lambda runs, rng: [part(at, runs, rng)]


CASES: dict[str, Goal] = {
    **{f"G1/{outcome}/{split}": _g1_cell(outcome, split) for outcome in OUTCOMES for split in SPLITS},
    **{f"G2/{multiple:g}": _one(g2_at, multiple) for multiple in G2_LIMITS},
    "G3": g3,
    "G4/effect": g4_effect,
    "G4/equal": g4_false,
    "G5": g5,
    "G6": g6,
    "G7": g7,
    "G8": g8,
    "G9/false": g9_false,
    "G9/found": g9_found,
    "G10": g10,
    "G11": g11,
    **{f"G12/{r2:g}": _one(g12_at, r2) for r2 in (0.5, 0.8)},
    "G13": g13,
    "G14": g14,
    "G16": g16,
}


def goal_of(key: str) -> str:
    return key.split("/")[0]


def measure(key: str) -> list[dict[str, Any]]:
    """The records of one case; ``seconds`` are those of the processor for the whole case."""
    runs = RUNS[key] if key in RUNS else RUNS[goal_of(key)]
    begin = time.process_time()
    measured = CASES[key](runs, np.random.default_rng([SEED, zlib.crc32(key.encode())]))
    seconds = round(time.process_time() - begin, 1)
    return [{**one.record(), "seed": SEED, "seconds": seconds} for one in measured]


def summary(cases: dict[str, list[dict[str, Any]]], wanted: Iterable[str] = CASES) -> list[dict[str, Any]]:
    """The records to show, in the order of the goals: of G1 the worst and the least cell, all others as they are."""
    keys = [key for key in wanted if key in cases]
    cells = {key.removeprefix("G1/"): cases[key][0] for key in keys if goal_of(key) == "G1"}
    rest = [record for key in keys if goal_of(key) != "G1" for record in cases[key]]
    if not cells:
        return rest
    rates = {cell: record["value"] for cell, record in cells.items()}
    return [*(one.record() for one in g1_summary(rates, RUNS["G1"])), *rest]
