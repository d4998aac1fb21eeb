"""Monitoring goals: G9 sample-ratio mismatch under any split schedule, G11 detectors after a promotion."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from benchmarks.stats_common import Measured, Rng, slack
from gateway.stats import LevelDetector, SampleRatio, bonferroni_threshold

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_TILTS = np.array([sign * size for size in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) for sign in (1.0, -1.0)])
_DROPS = ((0.5, 0.05), (0.1, 0.1), (0.01, 0.5))
_BLOCK = 20_000


def first_alarm(z: NDArray[np.bool_], pi: Floats, threshold: float, *, check: bool = False) -> int | None:
    """Units until `SampleRatio` reaches the threshold, looked at after every unit, by its formula on whole arrays."""
    cumulant = np.zeros((len(_TILTS), 1))
    ones = 0
    for begin in range(0, len(z), _BLOCK):
        share, arms = pi[begin : begin + _BLOCK], z[begin : begin + _BLOCK]
        path = cumulant + np.cumsum(np.log1p(share * np.expm1(_TILTS)[:, None]), axis=1)
        n1 = ones + np.cumsum(arms)
        log_e = special.logsumexp(_TILTS[:, None] * n1 - path, axis=0) - math.log(len(_TILTS))
        hit = np.flatnonzero(log_e >= threshold)
        if check and begin == 0:
            ratio = SampleRatio()
            ratio.add(share, arms)
            if abs(ratio.log_e() - log_e[-1]) > 1e-8 * max(1.0, abs(log_e[-1])):
                raise AssertionError("the path of the benchmark is not that of SampleRatio")
        if hit.size:
            return begin + int(hit[0]) + 1
        cumulant, ones = path[:, -1:], int(n1[-1])
    return None


def g9(runs: int, rng: Rng) -> list[Measured]:
    """False alarms at alpha .001 under three schedules; detection of lost challenger units."""
    threshold = bonferroni_threshold(0.001)
    n, alarms, detail = 20_000, {}, {}
    schedules = {
        "50 %": np.full(n, 0.5),
        "ramp": np.repeat([0.01, 0.1, 0.5], [5000, 5000, 10_000]),
        "1 %": np.full(n, 0.01),
    }
    for name, pi in schedules.items():
        hits = [first_alarm(rng.random(n) < pi, pi, threshold, check=run < 2) is not None for run in range(runs)]
        alarms[name] = sum(hits) / runs
    some, worst = max(min(runs, 400) // 4, 20), 0.0
    for split, drop in _DROPS:
        kept = split * (1.0 - drop) / (1.0 - split * drop)
        divergence = kept * math.log(kept / split) + (1.0 - kept) * math.log((1.0 - kept) / (1.0 - split))
        bound = threshold / divergence
        pi = np.full(int(6 * bound), split)
        units = [first_alarm(rng.random(len(pi)) < kept, pi, threshold) or len(pi) for _ in range(some)]
        ratio = float(np.mean(units)) / bound
        detail[f"{drop:.0%} lost at {split:.0%}"] = {"bound": bound, "mean / bound": ratio}
        worst = max(worst, ratio)
    return [
        Measured("G9", "worst false alarm, alpha .001", max(alarms.values()), slack(0.001, runs), runs, detail=alarms),
        Measured("G9", "worst mean detection / limit", worst, 1.6, some, detail=detail),
    ]


def _run(rng: Rng, rate: float, c: float, cap: int) -> tuple[int, int]:
    """Units until SR and CUSUM alarm, to within 10, at most ``cap``."""
    detector, found = LevelDetector(0.01), [cap, cap]
    for end in range(10, cap, 10):
        detector.fold((rng.random(10) < rate).astype(np.float64))
        peaks = detector.detector.peak_log_sr, detector.detector.peak_log_cusum
        found = [min(old, end) if peak >= math.log(c) else old for old, peak in zip(found, peaks, strict=True)]
        if max(found) < cap:
            break
    return found[0], found[1]


def g11(runs: int, rng: Rng) -> list[Measured]:
    """Average run length of the level detector at c = 1000, base .01; delay from .01 to .03 at c = 10^5."""
    some = min(max(runs // 4, 40), 1000)
    quiet = np.array([_run(rng, 0.01, 1000.0, 8000) for _ in range(some)], dtype=np.float64)
    loud = np.array([_run(rng, 0.03, 1e5, 8000) for _ in range(some)], dtype=np.float64)
    delay = math.log(1e5) / (0.03 * math.log(3.0) + 0.97 * math.log(0.97 / 0.99))
    measured = []
    for name, lengths, delays in zip(("SR", "CUSUM"), quiet.T, loud.T, strict=True):
        # An exponential run length has a standard error of its mean over sqrt(runs).
        least = 1000.0 * (1.0 - 2.33 / math.sqrt(some))
        capped = {"capped at 8000": float((lengths >= 8000).mean())}
        mean, ratio = float(lengths.mean()), float(delays.mean()) / delay
        measured.append(Measured("G11", f"mean run length, {name}, c = 1000", mean, least, some, True, capped))
        measured.append(Measured("G11", f"delay / (log c/KL), {name}, c = 1e5", ratio, 1.2, some))
    return measured
