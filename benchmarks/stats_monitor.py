"""Monitoring goals: G9 sample-ratio mismatch under any split schedule, G11 detectors after a promotion."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from benchmarks.stats_common import Measured, Rng, first_reach, mean_ratio, slack
from gateway.stats import LevelDetector, SampleRatio, bonferroni_threshold

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

_TILTS = np.array([sign * size for size in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) for sign in (1.0, -1.0)])
_DROPS = ((0.5, 0.05), (0.1, 0.1), (0.01, 0.5))
_BLOCK = 20_000


def cumulants(pi: Floats) -> Floats:
    """``sum_i log(1 - pi_i + pi_i e^eta)`` per tilt and unit, shape (12, n): the same for every run of a schedule."""
    return np.cumsum(np.log1p(pi * np.expm1(_TILTS)[:, None]), axis=1)


def first_alarm(z: Bools, path: Floats, threshold: float, *, check: Floats | None = None) -> int | None:
    """Units until `SampleRatio` reaches the threshold, looked at after every unit, by its formula on whole arrays.

    ``path`` are the `cumulants`. With the propensities as ``check`` the first block is compared with `SampleRatio`.
    """
    ones = 0
    for begin in range(0, len(z), _BLOCK):
        arms = z[begin : begin + _BLOCK]
        n1 = ones + np.cumsum(arms)
        exponents = _TILTS[:, None] * n1 - path[:, begin : begin + _BLOCK]
        if check is not None and begin == 0:
            ratio = SampleRatio()
            ratio.add(check[:_BLOCK], arms)
            last = float(special.logsumexp(exponents[:, -1])) - math.log(len(_TILTS))
            if abs(ratio.log_e() - last) > 1e-8 * max(1.0, abs(last)):
                raise AssertionError("the path of the benchmark is not that of SampleRatio")
        near = np.flatnonzero(exponents.max(axis=0) >= threshold)  # a mean never exceeds its largest term
        log_e = special.logsumexp(exponents[:, near], axis=0) - math.log(len(_TILTS))
        hit = near[log_e >= threshold]
        if hit.size:
            return begin + int(hit[0]) + 1
        ones = int(n1[-1])
    return None


def g9(runs: int, rng: Rng) -> list[Measured]:
    """False alarms, and detection of lost challenger units."""
    return [*g9_false(runs, rng), *g9_found(max(runs // 4, 20), rng)]


def g9_false(runs: int, rng: Rng) -> list[Measured]:
    """False alarms at alpha .001 under three schedules."""
    threshold, n, alarms = bonferroni_threshold(0.001), 20_000, {}
    schedules = {
        "50 %": np.full(n, 0.5),
        "ramp": np.repeat([0.01, 0.1, 0.5], [5000, 5000, 10_000]),
        "1 %": np.full(n, 0.01),
    }
    for name, pi in schedules.items():
        path, hits = cumulants(pi), 0
        for run in range(runs):
            hits += first_alarm(rng.random(n) < pi, path, threshold, check=pi if run < 2 else None) is not None
        alarms[name] = hits / runs
    what = "false alarm about the split, alpha .001, looking after every one of 20,000 units: worst of 3 schedules"
    return [Measured("G9", what, max(alarms.values()), slack(0.001, runs), runs, detail=alarms)]


def g9_found(runs: int, rng: Rng) -> list[Measured]:
    """Units until lost challenger units are noticed, over the limit."""
    threshold, detail, worst = bonferroni_threshold(0.001), {}, 0.0
    for split, drop in _DROPS:
        kept = split * (1.0 - drop) / (1.0 - split * drop)
        divergence = kept * math.log(kept / split) + (1.0 - kept) * math.log((1.0 - kept) / (1.0 - split))
        bound = threshold / divergence
        n = int(6 * bound)
        path = cumulants(np.full(n, split))
        units = [first_alarm(rng.random(n) < kept, path, threshold) or n for _ in range(runs)]
        ratio, error = mean_ratio(np.array(units, dtype=np.float64), bound)
        detail[f"{drop:.0%} lost at {split:.0%}"] = {"bound": bound, "mean / bound": ratio, "standard error": error}
        worst = max(worst, ratio)
    what = "units until lost challenger units are noticed, over the least that any test needs: worst of 3 cases"
    return [Measured("G9", what, worst, 1.6, runs, detail=detail)]


def alarm(x: Floats, threshold: float, peak: str) -> int | None:
    """Units until a real `LevelDetector` for a base of .01 alarms; ``peak`` is the recursion that is watched."""

    def load(state: dict[str, Any]) -> LevelDetector:
        detector = LevelDetector(0.01)
        detector.detector.load(state)
        return detector

    return first_reach(
        fold=lambda one, cut: one.fold(x[cut]),
        save=lambda one: one.detector.state(),
        load=load,
        reached=lambda one: bool(getattr(one.detector, peak) >= threshold),
        subject=LevelDetector(0.01),
        n=len(x),
    )


def g11(runs: int, rng: Rng) -> list[Measured]:
    """Average run length of the level detector at c = 1000, base .01; delay from .01 to .03 at c = 10^5."""
    some, cap, measured = max(runs // 4, 20), 8000, []
    delay = math.log(1e5) / (0.03 * math.log(3.0) + 0.97 * math.log(0.97 / 0.99))
    peaks = {"SR": "peak_log_sr", "CUSUM": "peak_log_cusum"}
    found = {(name, rate): np.empty(some) for name in peaks for rate in (0.01, 0.03)}
    for run in range(some):
        for rate, c in ((0.01, 1e3), (0.03, 1e5)):
            x = (rng.random(cap) < rate).astype(np.float64)
            for name, peak in peaks.items():
                found[name, rate][run] = alarm(x, math.log(c), peak) or cap
    for name in peaks:
        lengths, delays = found[name, 0.01], found[name, 0.03]
        # An exponential run length has a standard error of its mean over sqrt(runs).
        least = 1000.0 * (1.0 - 2.33 / math.sqrt(some))
        mean, error = mean_ratio(lengths, 1.0)
        detail = {"capped at 8000": float((lengths >= cap).mean()), "standard error": error}
        what = f"units between false alarms after a promotion, {name}, c = 1000"
        measured.append(Measured("G11", what, mean, least, some, True, detail))
        ratio, error = mean_ratio(delays, delay)
        what = f"units until errors that trebled are noticed, over (log c)/KL, {name}, c = 100,000"
        measured.append(Measured("G11", what, ratio, 1.2, some, detail={"standard error": error}))
    return measured
