"""Power goals: G2-G4 sample size against the limit and against other tests, G5 rollback, G12 CUPED."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from benchmarks.stats_common import Measured, Rng, capped, coins, draw, first_passage, mean_ratio, slack
from gateway.stats import ScoreCell, harm, information, least_units, superiority

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

ALPHA, BASE, EFFECT = 0.05, 0.05, 0.01
_THRESHOLD = math.log(1.0 / ALPHA)
OURS = "D1"


G2_LIMITS = {1.0: 1.20, 0.5: 1.45, 2.0: 1.45, 4.0: 1.70}


def g2(runs: int, rng: Rng) -> list[Measured]:
    """Mean units of superiority(.01) from base .05 over the limit, at .5 to 4 times the expected effect."""
    return [g2_at(multiple, max(runs // 4, 20) if multiple < 1.0 else runs, rng) for multiple in G2_LIMITS]


def g2_at(multiple: float, runs: int, rng: Rng) -> Measured:
    effect = multiple * EFFECT
    bound = least_units(information(BASE, BASE + effect, 0.5), ALPHA)
    cap = int(8 * bound)
    units = [_one(rng, effect, cap) for _ in range(runs)]
    ratio, error = mean_ratio(capped(units, cap), bound)
    detail = {"bound": bound, "standard error": error, "undecided": units.count(None)}
    what = f"units needed, over the least that any test needs, at {multiple:g} x the expected effect"
    return Measured("G2", what, ratio, G2_LIMITS[multiple], runs, detail=detail)


def _one(rng: Rng, effect: float, cap: int) -> int | None:
    z, pi = coins(rng, 0.5, cap)
    return first_passage({"up": superiority(EFFECT)}, _THRESHOLD, z, pi, draw(rng, BASE + effect * z))


def fixed_n80(alpha: float = ALPHA) -> float:
    """Units of both arms for 80 % power of the one-sided fixed z-test."""
    variance = 2.0 * (BASE * (1.0 - BASE) + (BASE + EFFECT) * (1.0 - BASE - EFFECT))
    return float((stats.norm.isf(alpha) + stats.norm.ppf(0.8)) ** 2 * variance / EFFECT**2)


def g3(runs: int, rng: Rng) -> list[Measured]:
    """Against the fixed horizon."""
    n80 = fixed_n80()
    cap = int(9 * n80)
    times = capped([_one(rng, EFFECT, cap) for _ in range(runs)], cap)
    ratio, error = mean_ratio(times, n80)
    detail = {"n80": n80, "standard error": error}
    what = "units needed, over those of a fixed test with 80 % power that may look only once"
    measured = [Measured("G3", what, ratio, 1.15, runs, detail=detail)]
    for multiple, least in ((1.0, 0.50), (1.5, 0.70), (2.0, 0.84)):
        power = float((times <= multiple * n80).mean())
        what = f"decided within {multiple:g} x the fixed test's units"
        measured.append(Measured("G3", what, power, least, runs, at_least=True))
    return measured


def rivals(z: NDArray[np.bool_], g: Floats, oracle: float, least: int = 100) -> dict[str, int | None]:
    """First crossing of other tests on one stream, looked at after every unit from ``least`` units per arm on."""
    n1 = np.cumsum(z)
    n0 = np.arange(1, len(z) + 1) - n1
    with np.errstate(divide="ignore", invalid="ignore"):
        p1, p0 = np.cumsum(g * z) / n1, np.cumsum(g * ~z) / n0
        d, se2 = p1 - p0, p1 * (1.0 - p1) / n1 + p0 * (1.0 - p0) / n0
        n = n0 + n1

        def asymptotic(n_star: float, alpha: float, one_sided: bool) -> NDArray[np.bool_]:
            level = 2.0 * alpha if one_sided else alpha
            r2 = (-2.0 * math.log(level) + math.log(1.0 - 2.0 * math.log(level))) / n_star
            k = n * r2 + 1.0
            log = np.log1p(np.sqrt(k) / (2.0 * alpha)) if one_sided else np.log(np.sqrt(k) / alpha)
            return np.asarray(d >= np.sqrt(se2 * 2.0 * k / (n * r2) * log))

        tau2 = EFFECT**2
        msprt = 0.5 * np.log(se2 / (se2 + tau2)) + d * d * tau2 / (2.0 * se2 * (se2 + tau2))
        crossed = {
            "mSPRT, tau = effect, two-sided": (msprt >= _THRESHOLD) & (d > 0.0),
            "A1, N* = 5000, two-sided": asymptotic(5000.0, ALPHA, one_sided=False),
            "A1, tuned to the limit, one-sided": asymptotic(oracle, ALPHA, one_sided=True),
            "peeked z-test, one-sided": d >= stats.norm.isf(ALPHA) * np.sqrt(se2),
        }
    ready = (np.minimum(n0, n1) >= least) & (se2 > 0.0)
    return {name: int(np.argmax(hit & ready)) + 1 if (hit & ready).any() else None for name, hit in crossed.items()}


def g4(runs: int, rng: Rng) -> list[Measured]:
    """The same streams for all: units until a decision, and false decisions at 1 % and 50 % splits."""
    return [*g4_effect(runs, rng), *g4_false(runs, rng)]


def g4_effect(runs: int, rng: Rng) -> list[Measured]:
    """Units until a decision at the expected effect."""
    bound = least_units(information(BASE, BASE + EFFECT, 0.5), ALPHA)
    cap = int(8 * bound)
    found: dict[str, list[int | None]] = {}
    for _ in range(runs):
        z, pi = coins(rng, 0.5, cap)
        g = draw(rng, BASE + EFFECT * z)
        found.setdefault(OURS, []).append(first_passage({"up": superiority(EFFECT)}, _THRESHOLD, z, pi, g))
        for name, n in rivals(z, g, bound).items():
            found.setdefault(name, []).append(n)
    units = {name: capped(times, cap) for name, times in found.items()}
    limits = {
        "mSPRT, tau = effect, two-sided": 0.85,
        "A1, N* = 5000, two-sided": 0.85,
        "A1, tuned to the limit, one-sided": 1.0,
    }
    measured = []
    for name, limit in limits.items():
        ratio, error = mean_ratio(units[OURS], units[name])
        what = f"units needed, over those of {name}, on the same streams"
        measured.append(Measured("G4", what, ratio, limit, runs, detail={"standard error": error}))
    measured[0].detail["mean units"] = {name: float(times.mean()) for name, times in units.items()}
    return measured


def g4_false(runs: int, rng: Rng) -> list[Measured]:
    """Promotions of an equal challenger on the same streams, by this test and by others."""
    false = {f"split {split:.0%}, from {least} per arm on": _false(runs, rng, split, least) for split, least in _FALSE}
    worst = max(rates[OURS] for rates in false.values())
    what = f"promoted although equal, on the streams of the comparison below: worst of {len(false)} cases"
    return [Measured("G4", what, worst, slack(ALPHA, runs), runs, detail=false)]


_FALSE = ((0.5, 2), (0.5, 100), (0.01, 2), (0.01, 50))


def _false(runs: int, rng: Rng, split: float, least: int) -> dict[str, float]:
    hits: dict[str, int] = {}
    for _ in range(runs):
        z, pi = coins(rng, split, 10_000)
        g = draw(rng, np.full(10_000, BASE))
        cell = ScoreCell({"up": superiority(EFFECT)})
        cell.fold(z, pi, g)
        hits[OURS] = hits.get(OURS, 0) + (cell.peak_log_e("up") >= _THRESHOLD)
        for name, n in rivals(z, g, 12_000.0, least).items():
            hits[name] = hits.get(name, 0) + (n is not None)
    return {name: count / runs for name, count in hits.items()}


def g5(runs: int, rng: Rng) -> list[Measured]:
    """Rollback at alpha .001 when errors rise from .5 % to 5 %, in requests of the challenger."""
    measured = []
    for split in (0.01, 0.05):
        bound = split * least_units(information(0.995, 0.95, split), 0.001)
        cap, requests = int(12 * bound / split), []
        for _ in range(runs):
            z, pi = coins(rng, split, cap)
            n = first_passage({"down": harm()}, math.log(1000.0), z, pi, draw(rng, np.where(z, 0.95, 0.995)))
            requests.append(int(z[: n or cap].sum()))
        mean = float(np.mean(requests))
        ratio, error = mean_ratio(np.array(requests, dtype=np.float64), bound)
        late = float(np.quantile(requests, 0.95))
        detail = {"bound": bound, "standard error": error * bound, "95th percentile": late}
        what = f"requests that met a challenger with 5 % instead of .5 % errors before rollback, {split:.0%} split"
        measured.append(Measured("G5", what, mean, 170.0, runs, detail=detail))
        what = f"the same, over the least that any test needs, {split:.0%} split"
        measured.append(Measured("G5", what, ratio, 1.6, runs, detail={"standard error": error}))
    return measured


def g12(runs: int, rng: Rng) -> list[Measured]:
    """Mean units with a covariate over those without, one-sided .05."""
    return [g12_at(r2, max(runs // 4, 20), rng) for r2 in (0.5, 0.8)]


def g12_at(r2: float, runs: int, rng: Rng) -> Measured:
    n, bets = 24_000, {"up": superiority(0.007)}
    units: list[tuple[int, int]] = []
    for _ in range(runs):
        x = rng.standard_normal((n, 1))
        z, pi = coins(rng, 0.5, n)
        noise = math.sqrt(r2) * x[:, 0] + math.sqrt(1.0 - r2) * rng.standard_normal(n)
        g = np.clip(0.5 + 0.1 * noise + 0.007 * z, 0.0, 1.0)
        units.append(
            (first_passage(bets, _THRESHOLD, z, pi, g, x) or n, first_passage(bets, _THRESHOLD, z, pi, g) or n)
        )
    ratio, error = mean_ratio(*np.array(units, dtype=np.float64).T)
    what = f"units needed with a covariate that explains {r2:.0%}, over those without"
    return Measured("G12", what, ratio, 1.15 * (1.0 - r2) + 0.15, runs, detail={"standard error": error})
