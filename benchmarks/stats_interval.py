"""G6: width of the confidence sequence against the fixed-n interval, and coverage at every single n.

[N*/2, 3 N*] is read in intrinsic time (the n at which V is half of, or three times, V(N*)): without a ramp that is the
same, and in a ramp n is no clock.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.stats_common import Measured, Rng, draw, slack
from gateway.stats import (
    BANDS,
    ScoreCell,
    band_of,
    banded_log_e,
    normal_log_e,
    normal_rho,
    one_sided_rho,
    overlap_interval,
    superiority,
)
from gateway.stats.moments import epoch_length

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

ALPHA = 0.05
_AT = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
_WIDTHS = 400
"""Runs that measure widths, which hardly vary."""


def scenarios() -> dict[str, tuple[Floats, Floats, Floats, int]]:
    """pi, base rate and effect per unit up to 3 N*, and N*, the n at which V is about 100."""
    steady, moving = 7500, 11_000
    ramp = np.repeat([0.01, 0.1, 0.5], [750, 750, moving - 1500])
    return {
        "base .2, 50 %": (np.full(steady, 0.5), np.full(steady, 0.2), np.zeros(steady), steady // 3),
        "base .5, 50 %": (np.full(4800, 0.5), np.full(4800, 0.5), np.zeros(4800), 1600),
        "ramp, base .1 -> .2, effect 0 -> .1": (
            ramp,
            np.linspace(0.1, 0.2, moving),
            np.linspace(0.0, 0.1, moving),
            4100,
        ),
    }


def g6(runs: int, rng: Rng) -> list[Measured]:
    """Half-widths at N*/2 to 3 N*, and miscoverage of the running effect at every n."""
    exact, asymptotic, unbanded, detail = [], [], [], {}
    missed = {"exact": 0.0, "asymptotic, from n = 200": 0.0}
    for name, (pi, base, effect, n_star) in scenarios().items():
        h = pi * (1.0 - pi)
        variance = h * ((1.0 - pi) * (base + effect) * (1.0 - base - effect) + pi * base * (1.0 - base))
        v_opt = float(variance[:n_star].sum())
        fixed = 1.959964 * np.sqrt(np.cumsum(variance)) / np.cumsum(h)
        target = np.cumsum(h * effect)
        at = [int(np.searchsorted(np.cumsum(variance), share * v_opt)) + 1 for share in _AT]
        some, misses = min(runs, _WIDTHS), np.zeros(2)
        seen = np.empty((some, 3, len(_AT)))
        for run in range(runs):
            z = rng.random(len(pi)) < pi
            g = draw(rng, base + effect * z)
            misses += _missed(z, pi, g, target, v_opt, check=run < 3)
            if run < some:
                seen[run] = _widths(z, pi, g, at, v_opt, fixed)
        widths = seen.mean(axis=0)
        detail[name] = {
            "v_opt": v_opt,
            "V / V(N*)": _AT,
            "n": at,
            "exact": widths[0].tolist(),
            "asymptotic": widths[1].tolist(),
            "exact with range 1": widths[2].tolist(),
            "standard error, largest": float(seen.std(axis=0).max() / math.sqrt(some)),
            "missed": (misses / runs).tolist(),
        }
        exact.append(widths[0].max())
        asymptotic.append(widths[1].max())
        unbanded.append(widths[2].max())
        missed["exact"] = max(missed["exact"], misses[0] / runs)
        missed["asymptotic, from n = 200"] = max(missed["asymptotic, from n = 200"], misses[1] / runs)
    before = {"B2 with range 1, before": float(max(unbanded))}
    return [
        Measured(
            "G6",
            "width of the exact interval, over that of a fixed sample's: worst",
            float(max(exact)),
            1.85,
            min(runs, _WIDTHS),
            detail=detail | before,
        ),
        Measured(
            "G6",
            "width of the asymptotic interval, over the same: worst",
            float(max(asymptotic)),
            1.60,
            min(runs, _WIDTHS),
        ),
        *(
            Measured(
                "G6", f"truth outside the interval at any n: {kind}, worst of 3 cases", rate, slack(ALPHA, runs), runs
            )
            for kind, rate in missed.items()
        ),
    ]


def _widths(z: NDArray[np.bool_], pi: Floats, g: Floats, at: list[int], v_opt: float, fixed: Floats) -> Floats:
    """Half-widths of a real cell over the fixed one's: exact, asymptotic, exact without bands; shape (3, len(at))."""
    cell, begin, out = ScoreCell({"up": superiority()}), 0, np.empty((3, len(at)))
    for j, end in enumerate(at):
        end = min(end, len(g))
        cell.fold(z[begin:end], pi[begin:end], g[begin:end])
        begin = end
        known = cell.state()["moments"]
        sums = known["sum_psi"], known["sum_h"], known["v"]
        found = (
            cell.interval(ALPHA, v_opt=v_opt),
            cell.interval(ALPHA, v_opt=v_opt, method="asymptotic"),
            overlap_interval(*sums, alpha=ALPHA, v_opt=v_opt),
        )
        out[:, j] = [(one.upper - one.lower) / 2.0 / fixed[end - 1] for one in found]
    return out


def _missed(
    z: NDArray[np.bool_], pi: Floats, g: Floats, target: Floats, v_opt: float, *, check: bool
) -> NDArray[np.float64]:
    """Did the sequences miss the running effect at any n? Paths by the formulas of `Moments`; the cell checks them."""
    n = len(g)
    start, begin = np.zeros(n, dtype=np.intp), 0
    while begin < n:
        length = epoch_length(begin)
        start[begin : begin + length] = begin
        begin += length
    q, h = 1.0 - pi, pi * (1.0 - pi)
    m = (np.concatenate([[0.0], np.cumsum(g)])[start] + 0.5) / (start + 1.0)
    psi = (z - pi) * (g - m)
    s_psi, s_h = (np.concatenate([[0.0], np.cumsum(x)])[start] for x in (psi, h))
    t = np.clip(s_psi / np.where(start > 0, s_h, 1.0), -1.0, 1.0)
    square = (psi - h * t) ** 2
    error, v = np.cumsum(psi) - target, np.cumsum(square)
    reach = {
        1.0: np.maximum(q * m, pi * (1.0 - m)) + h * t,
        -1.0: np.maximum(q * (1.0 - m), pi * m) - h * t,
    }
    exact, ends = False, []
    for side, c in reach.items():
        # At most exp(s^2/2v) of evidence, whatever the bands: f(lambda, c) >= lambda^2/2. Few n come near the boundary.
        promising = np.flatnonzero(side * error >= np.sqrt(2.0 * math.log(2.0 / ALPHA) * v) * (1.0 - 1e-9))
        if not (promising.size or check):
            continue
        steps = np.zeros((n, len(BANDS)))
        steps[np.arange(n), band_of(c)] = square
        path = np.cumsum(steps, axis=0)
        log_e = banded_log_e(side * error[promising], path[promising], rho=one_sided_rho(v_opt, ALPHA / 2.0))
        exact |= bool((log_e >= math.log(2.0 / ALPHA)).any())
        ends.append(path[-1])
    if check:
        cell = ScoreCell({"up": superiority()})
        cell.fold(z, pi, g)
        known = cell.state()["moments"]
        if not np.allclose([known["below"], known["above"]], ends, rtol=1e-9):
            raise AssertionError("the path of the benchmark is not that of the cell")
    normal = normal_log_e(error[200:], v[200:], rho=normal_rho(v_opt, ALPHA))
    return np.array([exact, (normal >= math.log(1.0 / ALPHA)).any()], dtype=np.float64)
