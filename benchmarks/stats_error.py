"""Error goals: G1 peeking at every outcome, G7 correlated requests, G8 drift, G10 segments, G16 bad input."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.stats_common import Measured, Rng, coins, draw, slack
from gateway.stats import Reference, ScoreCell, bonferroni_threshold, count_score, harm, ratio_score, superiority

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

ALPHA = 0.05
UNITS = 10_000
_SPLITS = ("0.01", "0.05", "0.5", "ramp", "bandit")


def _ratio(rng: Rng, n: int) -> Floats:
    requests = np.minimum(rng.geometric(0.3, n), 50).astype(np.float64)
    clicks = rng.binomial(requests.astype(int), 0.2).astype(np.float64)
    return ratio_score(clicks, requests, ratio=0.2, numerator_cap=50.0, denominator_cap=50.0)


OUTCOMES: dict[str, Callable[[Rng, int], Floats]] = {
    "binary .01": lambda rng, n: draw(rng, np.full(n, 0.01)),
    "binary .1": lambda rng, n: draw(rng, np.full(n, 0.1)),
    "binary .5": lambda rng, n: draw(rng, np.full(n, 0.5)),
    "bounded": lambda rng, n: rng.beta(2.0, 5.0, n),
    "heavy tail": lambda rng, n: Reference.freeze(rng.lognormal(0.0, 2.0, 500)).ranks(rng.lognormal(0.0, 2.0, n)),
    "counts": lambda rng, n: count_score(rng.negative_binomial(0.5, 0.2, n), 20.0),
    "ratio": _ratio,
}


def shares(kind: str, rng: Rng, g: Floats) -> tuple[NDArray[np.bool_], Floats]:
    """Coins of one run: fixed, a ramp .01 -> .1 -> .5, or Thompson sampling in batches of 50 with floor .05."""
    n = len(g)
    if kind == "ramp":
        return coins(rng, np.repeat([0.01, 0.1, 0.5], [n // 4, n // 4, n - 2 * (n // 4)]), n)
    if kind != "bandit":
        return coins(rng, float(kind), n)
    z, pi, good, bad = np.zeros(n, dtype=np.bool_), np.empty(n), [1.0, 1.0], [1.0, 1.0]
    for begin in range(0, n, 50):
        samples = [rng.beta(good[arm], bad[arm], 100) for arm in (0, 1)]
        pi[begin : begin + 50] = float(np.clip(np.mean(samples[1] > samples[0]), 0.05, 0.95))
        z[begin : begin + 50] = rng.random(50) < pi[begin]
        for arm in (0, 1):
            mine = g[begin : begin + 50][z[begin : begin + 50] == arm]
            good[arm] += float(mine.sum())
            bad[arm] += float((1.0 - mine).sum())
    return z, pi


def g1(runs: int, rng: Rng) -> list[Measured]:
    """False promotion without an effect, looking at every outcome of 10^4."""
    rates = {}
    for name, outcome in OUTCOMES.items():
        for split in _SPLITS:
            hits = 0
            for _ in range(runs):
                g = outcome(rng, UNITS)
                cell = ScoreCell({"up": superiority(0.02)})
                cell.fold(*shares(split, rng, g), g)
                hits += cell.peak_log_e("up") >= bonferroni_threshold(ALPHA)
            rates[f"{name}, {split}"] = hits / runs
    worst = max(rates.values())
    least = min(rates[f"binary {p}, 0.5"] for p in (".01", ".1", ".5"))
    return [
        Measured("G1", "worst false promotion at alpha .05, 35 cells", worst, slack(ALPHA, runs), runs, detail=rates),
        Measured("G1", "least false promotion, binary at 50 %: not vacuous", least, 0.01, runs, at_least=True),
    ]


def g7(runs: int, rng: Rng) -> list[Measured]:
    """Sticky users with correlated requests: one vote per user, against one per request."""
    rates, naive = {}, {}
    for requests, icc in ((10, 0.05), (10, 0.3), (50, 0.2)):
        users, hits, fooled = 1000, 0, 0
        a = 0.1 * (1.0 / icc - 1.0)
        for _ in range(runs):
            rate = rng.beta(a, 9.0 * a, users)
            z, pi = coins(rng, 0.5, users)
            clicks = rng.binomial(requests, rate)
            cell = ScoreCell({"up": superiority(0.03)})
            cell.fold(z, pi, clicks / requests)
            hits += cell.peak_log_e("up") >= bonferroni_threshold(ALPHA)
            arms = [clicks[z == arm].sum() / max((z == arm).sum() * requests, 1) for arm in (0, 1)]
            pooled = clicks.sum() / (users * requests)
            se = math.sqrt(pooled * (1.0 - pooled) * 4.0 / (users * requests))
            fooled += abs(arms[1] - arms[0]) > 1.96 * se
        rates[f"{requests} requests, ICC {icc}"] = hits / runs
        naive[f"{requests} requests, ICC {icc}"] = fooled / runs
    detail = {"user level": rates, "z-test on requests, once, at the end": naive}
    return [
        Measured("G7", "worst false promotion, alpha .05", max(rates.values()), slack(ALPHA, runs), runs, detail=detail)
    ]


def g8(runs: int, rng: Rng) -> list[Measured]:
    """Split .01 -> .5 while the base drifts .10 -> .20: no effect, and a true loss of .02."""
    n = 20_000
    pi = np.repeat([0.01, 0.05, 0.2, 0.5], n // 4)
    base = np.linspace(0.1, 0.2, n)
    h = pi * (1.0 - pi)
    raised = rolled = promoted = precise = 0
    pooled: list[float] = []
    for tau in (0.0, -0.02):
        for _ in range(runs):
            z = rng.random(n) < pi
            g = draw(rng, base + tau * z)
            cell = ScoreCell({"up": superiority(0.02), "down": harm()})
            cell.fold(z, pi, g)
            up = cell.peak_log_e("up") >= bonferroni_threshold(ALPHA)
            if tau == 0.0:
                raised += up
                rolled += cell.peak_log_e("down") >= bonferroni_threshold(ALPHA)
                se = math.sqrt(float((h * base * (1.0 - base)).sum())) / float(h.sum())
                precise += abs(cell.interval(0.05, v_opt=100.0).estimate) < 2.0 * se
                pooled.append(cell.means[1] - cell.means[0])
            else:
                promoted += cell.peak_log_e("up") >= bonferroni_threshold(0.01)
    return [
        Measured("G8", "false promotion, alpha .05", raised / runs, slack(ALPHA, runs), runs),
        Measured("G8", "false rollback, alpha .05", rolled / runs, slack(ALPHA, runs), runs),
        Measured("G8", "E+ >= 100 at any time, with a true -.02", promoted / runs, 0.001, runs),
        Measured(
            "G8",
            "share of estimates within 2 se",
            precise / runs,
            0.93,
            runs,
            at_least=True,
            detail={"pooled difference": float(np.mean(pooled))},
        ),
    ]


def g10(runs: int, rng: Rng) -> list[Measured]:
    """Twenty Zipf segments: any false harm flag, and a segment of 5 % that falls from .20 to .10."""
    segments, n = 20, 40_000
    weight = 1.0 / np.arange(1, segments + 1)
    weight /= weight.sum()
    hurt = int(np.argmin(np.abs(weight - 0.05)))
    threshold = bonferroni_threshold(ALPHA, segments)
    flagged = found = 0
    for harmed in (False, True):
        for _ in range(runs):
            segment = rng.choice(segments, n, p=weight)
            z, pi = coins(rng, 0.5, n)
            g = draw(rng, 0.2 - 0.1 * (z & (segment == hurt) & harmed))
            wanted = (hurt,) if harmed else range(segments)
            hit = False
            for one in wanted:
                mine = segment == one
                cell = ScoreCell({"down": harm()})
                cell.fold(z[mine], pi[mine], g[mine])
                hit |= cell.peak_log_e("down") >= threshold
            found, flagged = found + (hit and harmed), flagged + (hit and not harmed)
    share = float(weight[hurt])
    return [
        Measured("G10", "any false harm flag", flagged / runs, slack(ALPHA, runs), runs),
        Measured(
            "G10", "harmed segment found by 40k", found / runs, 0.95, runs, at_least=True, detail={"traffic": share}
        ),
    ]


def g16(runs: int, rng: Rng) -> list[Measured]:
    """Bad values change nothing and raise; log E stays finite over any stream."""
    wrong = 0
    bad = (math.nan, math.inf, -math.inf, -1e-9, 1.0 + 1e-9, 1e300)
    cell = ScoreCell({"up": superiority(0.02), "down": harm()})
    for _ in range(min(runs, 200)):
        z, pi = coins(rng, 0.5, 50)
        g = rng.random(50)
        cell.fold(z, pi, g)
        before = cell.state()
        for value in bad:
            for broken in ((pi, np.where(np.arange(50) == 7, value, g)), (np.where(np.arange(50) == 7, value, pi), g)):
                try:
                    cell.fold(z, *broken)
                    wrong += 1
                except ValueError:
                    wrong += cell.state() != before
    extreme = ScoreCell({"up": superiority(0.02), "down": harm()})
    z = np.arange(400_000) % 2 == 0
    extreme.fold(z, np.full(len(z), 0.5), z.astype(np.float64))
    logs = [extreme.log_e(name) for name in ("up", "down")]
    reach = min(abs(value) for value in logs) / math.log(10.0) if all(map(math.isfinite, logs)) else 0.0
    return [
        Measured("G16", "bad values folded, or states changed by them", float(wrong), 0.0, min(runs, 200)),
        Measured("G16", "decimal orders that log E carried", reach, 300.0, 1, at_least=True),
    ]
