"""T7 outcomes that get lost in one arm, T8 a coin that is not the configured one, T13 values that are refused."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from benchmarks.stats_common import Measured
from gateway.evidence.batch import Batch, Floats
from gateway.evidence.cells import Evidence
from gateway.evidence.definition import MetricDefinition
from gateway.evidence.fold import fold_values
from tests.statistical.rig import (
    STRICT,
    Flags,
    Rng,
    Trapped,
    at_most,
    binary,
    blocks,
    decided,
    drawn,
    experiment,
    happens,
    naive,
    peak,
    reached,
    report_of,
)

LABEL = binary("label", missing="exclude")
BOUNDED = binary("label", missing="bounds")
LOST = 0.05


def first_alarm(batch: Batch, values: Floats, size: int) -> tuple[int | None, bool]:
    """Units until a missingness alarm, looked for once in a block; and whether the policy ever promoted before."""
    evidence, promoted = Evidence(experiment(LABEL)), False
    for some, told, end in blocks(batch, values, size):
        fold_values(evidence, LABEL, some, told)
        if report_of(evidence, STRICT).sample_ratio_alarm:
            return end, promoted
        promoted |= decided(evidence).kind == "promote"
    return None, promoted


def bound(kept: float, split: float = 0.5) -> float:
    """Units that no test of level .001 can do with, of those that arrive in a share `kept` at a coin `split`."""
    divergence = kept * math.log(kept / split) + (1 - kept) * math.log((1 - kept) / (1 - split))
    return math.log(1000.0) / divergence


def t7(runs: int, seed: int) -> Trapped:
    """5 % of the challenger's outcomes are lost at random: noticed, and nothing is promoted from then on."""
    rng, n, size = np.random.default_rng(seed), 100_000, 1000
    alarms, promoted, silent = [], [], []
    for _ in range(runs):
        z, batch = drawn(rng, 0.5, n)
        y = happens(rng, 0.3, n)
        alarm, early = first_alarm(batch, np.where(z & (rng.random(n) < LOST), np.nan, y), size)
        alarms.append(alarm or n)
        promoted.append(early)
        some = np.arange(20_000)
        equal = np.where(rng.random(len(some)) < LOST, np.nan, y[some])
        quiet, _ = first_alarm(batch.where(np.arange(n) < len(some)), equal, 2000)
        silent.append(quiet is not None)
    return [
        Measured(
            "T7",
            "mean units until the missingness alarm, looked for every 1,000",
            float(np.mean(alarms)),
            34_000.0,
            runs,
        ),
        at_most("T7", "promoted before it, at .01", promoted, STRICT.alpha),
        at_most("T7", "alarm where both arms lose as much, at .001", silent, 0.001),
    ]


def _promoted(
    rng: Rng,
    n: int,
    size: int,
    rate: float,
    lost: Callable[[Flags, Floats], Flags],
    metric: MetricDefinition = LABEL,
) -> tuple[bool, bool]:
    """Equal arms, some outcomes lost: does the policy promote at any look; would it without those it knows are lost?"""
    z, batch = drawn(rng, 0.5, n)
    y = happens(rng, rate, n)
    values = np.where(lost(z, y), np.nan, y)
    evidence, won, simple, alarm = Evidence(experiment(metric, expected=0.015)), False, False, False
    for some, told, _ in blocks(batch, values, size):
        fold_values(evidence, metric, some, told)
        alarm |= report_of(evidence, STRICT).sample_ratio_alarm
        won |= decided(evidence).kind == "promote"
        simple |= not alarm and reached(peak(evidence), STRICT.alpha)
    return won, simple


def t7_failures(runs: int, seed: int, rate: float, n: int, share: float = LOST) -> Trapped:
    """Some of the challenger's *failures* are lost: it looks better than it is, long before the loss shows."""
    rng = np.random.default_rng(seed)
    found = [
        _promoted(rng, n, n // 10, rate, lambda z, y: z & (y == 0.0) & (rng.random(n) < share)) for _ in range(runs)
    ]
    return _by_loss(found, f"{share:.0%} of the challenger's failures lost at a rate of {rate}")


def t7_successes(runs: int, seed: int, metric: MetricDefinition = BOUNDED) -> Trapped:
    """5 % of the champion's *successes* are lost, say because the challenger's page is better at reporting them."""
    rng, n = np.random.default_rng(seed), 80_000

    def lost(z: Flags, y: Floats) -> Flags:
        return np.asarray(~z & (y == 1.0) & (rng.random(n) < LOST))

    found = [_promoted(rng, n, n // 10, 0.5, lost, metric) for _ in range(runs)]
    return _by_loss(found, "5 % of the champion's successes lost at a rate of .5")


def _by_loss(found: list[tuple[bool, bool]], what: str) -> Trapped:
    return [
        at_most("T7", f"promoted although equal at .01, {what}", [won for won, _ in found], STRICT.alpha),
        naive("T7", "evidence without the missing ones at .01, before any alarm", [simple for _, simple in found]),
    ]


def chi_square(z: Flags) -> bool:
    """A sample ratio test at .01, looked at after every unit from the hundredth on."""
    n = np.arange(1, len(z) + 1)
    return bool((np.abs(np.cumsum(z) - n / 2)[99:] / np.sqrt(n / 4)[99:] > 2.5758).any())


def t8(runs: int, seed: int) -> Trapped:
    """The true split is .48 where .50 is configured; then a healthy coin."""
    rng = np.random.default_rng(seed)
    least = bound(0.48)
    found, false, fooled = [], [], []
    for _ in range(runs):
        found.append(_until(rng.random(round(6 * least)) < 0.48))
        z = rng.random(10_000) < 0.5
        false.append(_until(z) < len(z))
        fooled.append(chi_square(z))
    return [
        Measured("T8", "mean units until the alarm / limit", float(np.mean(found)) / least, 1.6, runs),
        at_most("T8", "alarm of a healthy coin at .001", false, 0.001),
        naive("T8", "chi-square at .01 at every unit, healthy coin", fooled, 0.05),
    ]


def _until(z: Flags, size: int = 100) -> int:
    evidence = Evidence(experiment(LABEL))
    for begin in range(0, len(z), size):
        part = z[begin : begin + size]
        evidence.fold_coins(part.astype(np.int64).tolist(), [(0.5, 0.5)] * len(part))
        if report_of(evidence).sample_ratio_alarm:
            return begin + size
    return len(z)
