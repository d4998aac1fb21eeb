"""Error goals: G1 peeking at every outcome, G7 correlated requests, G8 drift, G10 segments, G16 bad input."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.stats_common import Measured, Rng, coins, draw, slack
from gateway.stats import Reference, ScoreCell, bonferroni_threshold, count_score, harm, ratio_score, superiority

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

ALPHA = 0.05
UNITS = 10_000
SPLITS = ("0.01", "0.05", "0.5", "ramp", "bandit")


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


_BATCH = 50
"""Runs that draw their coins side by side: a bandit has 200 steps, whose cost they share."""


def shares(kind: str, rng: Rng, g: Floats) -> tuple[Bools, Floats]:
    """Coins of some runs, shape (runs, n): fixed, a ramp .01 -> .1 -> .5, or Thompson sampling."""
    n = g.shape[1]
    if kind == "bandit":
        return _bandit(rng, g)
    steps = np.repeat([0.01, 0.1, 0.5], [n // 4, n // 4, n - 2 * (n // 4)]) if kind == "ramp" else np.array(float(kind))
    pi = np.array(np.broadcast_to(steps, g.shape))
    return rng.random(g.shape) < pi, pi


def _bandit(rng: Rng, g: Floats) -> tuple[Bools, Floats]:
    """Thompson sampling in batches of 50 units with floor .05, from 100 draws of each arm's Beta posterior."""
    z, pi = np.zeros(g.shape, dtype=np.bool_), np.empty(g.shape)
    good, bad = np.ones((2, len(g))), np.ones((2, len(g)))
    for begin in range(0, g.shape[1], 50):
        cut = slice(begin, begin + 50)
        samples = rng.beta(good[..., None], bad[..., None], (2, len(g), 100))
        pi[:, cut] = np.clip((samples[1] > samples[0]).mean(axis=1), 0.05, 0.95)[:, None]
        z[:, cut] = rng.random(z[:, cut].shape) < pi[:, cut]
        for arm in (0, 1):
            mine = z[:, cut] == arm
            good[arm] += (g[:, cut] * mine).sum(axis=1)
            bad[arm] += ((1.0 - g[:, cut]) * mine).sum(axis=1)
    return z, pi


def g1_rate(outcome: str, split: str, runs: int, rng: Rng) -> float:
    """Share of runs without an effect that promoted at any of 10^4 units."""
    hits = 0
    for begin in range(0, runs, _BATCH):
        g = np.array([OUTCOMES[outcome](rng, UNITS) for _ in range(min(_BATCH, runs - begin))])
        for z, pi, scores in zip(*shares(split, rng, g), g, strict=True):
            cell = ScoreCell({"up": superiority(0.02)})
            cell.fold(z, pi, scores)
            hits += cell.peak_log_e("up") >= bonferroni_threshold(ALPHA)
    return hits / runs


def g1_summary(rates: Mapping[str, float], runs: int) -> list[Measured]:
    """The worst cell, and whether the test could promote at all; ``rates`` by "outcome/split"."""
    fair = [rate for cell, rate in rates.items() if cell.startswith("binary") and cell.endswith("/0.5")]
    worst = Measured(
        "G1",
        f"promoted although equal, looking after every one of 10,000 units: worst of {len(rates)} cases",
        max(rates.values()),
        slack(ALPHA, runs),
        runs,
        detail=dict(rates),
    )
    if not fair:
        return [worst]
    what = "the same for yes/no outcomes at a 50 % split, least: the test is not merely blind"
    return [worst, Measured("G1", what, min(fair), 0.01, runs, at_least=True)]


def g1(runs: int, rng: Rng) -> list[Measured]:
    """False promotion without an effect, looking at every outcome of 10^4."""
    rates = {f"{outcome}/{split}": g1_rate(outcome, split, runs, rng) for outcome in OUTCOMES for split in SPLITS}
    return g1_summary(rates, runs)


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
        Measured(
            "G7",
            "promoted although equal, users with 10 or 50 correlated requests and one vote: worst of 3 cases",
            max(rates.values()),
            slack(ALPHA, runs),
            runs,
            detail=detail,
        )
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
        Measured(
            "G8",
            "promoted although equal, while the split grows and the base rate doubles",
            raised / runs,
            slack(ALPHA, runs),
            runs,
        ),
        Measured("G8", "rolled back although equal, in the same runs", rolled / runs, slack(ALPHA, runs), runs),
        Measured("G8", "evidence of 100 for a challenger that is truly worse by .02", promoted / runs, 0.001, runs),
        Measured(
            "G8",
            "estimates within two standard errors of the truth, where the variants are equal",
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
            segment = rng.choice(segments, n, p=weight).astype(np.uint8)
            z, pi = coins(rng, 0.5, n)
            g = draw(rng, 0.2 - 0.1 * (z & (segment == hurt) & harmed))
            order = np.argsort(segment, kind="stable")
            parts = np.split(order, np.cumsum(np.bincount(segment, minlength=segments))[:-1])
            hit = False
            for mine in parts[hurt : hurt + 1] if harmed else parts:
                cell = ScoreCell({"down": harm()})
                cell.fold(z[mine], pi[mine], g[mine])
                hit |= cell.peak_log_e("down") >= threshold
            found, flagged = found + (hit and harmed), flagged + (hit and not harmed)
    return [
        Measured("G10", "any of 20 equal segments flagged as harmed", flagged / runs, slack(ALPHA, runs), runs),
        Measured(
            "G10",
            "a segment of 5 % of the traffic that falls from .20 to .10 is found within 40,000 units",
            found / runs,
            0.95,
            runs,
            at_least=True,
            detail={"traffic": float(weight[hurt])},
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
        Measured("G16", "bad values that were folded, or that changed a state", float(wrong), 0.0, min(runs, 200)),
        Measured("G16", "decimal orders of evidence carried without overflow", reach, 300.0, 1, at_least=True),
    ]
