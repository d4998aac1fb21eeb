"""Published numbers, reproduced. Those of confseq (B1, B2, B4 and the proportion) are anchors of tests/unit/stats."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from gateway.stats import SampleRatio
from tests.statistical.rig import ALPHA, asymptotic, binary, drawn, experiment, folded, happens, peak, reached, z_path

# Armitage, McPherson & Rowe 1969 (JRSS A 132:235), table 2: a two-sided 5 % test of normal data, looked at k times.
REPEATED = {1: 0.05, 2: 0.083, 5: 0.142, 10: 0.193, 20: 0.248, 50: 0.320, 100: 0.374}
# Finals of five equal looks at two-sided 5 %: Pocock 1977, O'Brien & Fleming 1979 (as tabled by Jennison & Turnbull).
POCOCK, OBRIEN_FLEMING = 2.413, 2.040


def walks(looks: int, runs: int = 60_000) -> np.ndarray:
    """|Z| at equally spaced looks at normal data without an effect. Shape (runs, looks)."""
    steps = np.random.default_rng(1).standard_normal((runs, looks))
    return np.asarray(np.abs(np.cumsum(steps, axis=1)) / np.sqrt(np.arange(1, looks + 1)))


@pytest.mark.parametrize("looks", REPEATED)
def test_armitage_mcpherson_and_rowe_on_repeated_significance_tests(looks: int) -> None:
    rate = float((walks(looks) > 1.959964).any(axis=1).mean())
    assert rate == pytest.approx(REPEATED[looks], abs=0.006)


def test_group_sequential_finals() -> None:
    z = walks(5, 400_000)
    assert (z > POCOCK).any(axis=1).mean() == pytest.approx(0.05, abs=0.0012)
    shrinking = OBRIEN_FLEMING * np.sqrt(5 / np.arange(1, 6))
    assert (z > shrinking).any(axis=1).mean() == pytest.approx(0.05, abs=0.0012)


def test_the_constant_of_robbins_and_siegmund() -> None:
    # A2: 2(1 - Phi(a) + a phi(a)) = alpha exactly where a^2 is the upper quantile of chi-square with 3 degrees.
    for alpha, square in ((0.05, 7.815), (0.01, 11.345), (0.001, 16.266)):
        a = math.sqrt(float(stats.chi2(3).isf(alpha)))
        assert a * a == pytest.approx(square, abs=5e-4)
        assert 2 * (stats.norm.sf(a) + a * stats.norm.pdf(a)) == pytest.approx(alpha, rel=1e-9)
    assert math.sqrt(7.815) == pytest.approx(2.795, abs=1e-3)


def test_the_sample_ratio_of_kohavi_tang_and_xu() -> None:
    # Trustworthy Online Controlled Experiments (2020), ch. 3: 821,588 against 815,482, p = 1.8e-6 at one look. What
    # may be looked at after every unit says the same some orders later, and still below the .001 that alarms.
    counts = np.array([821_588, 815_482])
    single = float(stats.chisquare(counts).pvalue)
    assert single == pytest.approx(1.8e-6, rel=0.03)
    ratio = SampleRatio()
    ratio.add_counts(0.5, int(counts.sum()), int(counts[0]))
    anytime = math.exp(-ratio.log_e())
    assert 1e1 * single < anytime < 1e4 * single
    assert anytime < 0.001


def test_the_naive_statistic_of_the_traps_is_the_textbook_one() -> None:
    rng = np.random.default_rng(2)
    z, y = rng.random(500) < 0.5, happens(rng, 0.3, 500)
    n1, n0 = z.sum(), (~z).sum()
    p = y.mean()
    by_hand = (y[z].mean() - y[~z].mean()) / math.sqrt(p * (1 - p) * (1 / n1 + 1 / n0))
    assert z_path(z, y)[-1] == pytest.approx(by_hand, rel=1e-12)


def test_peeking_at_the_asymptotic_sequence_away_from_the_ramp_is_harmless() -> None:
    # statistics.md 2.1: B1 tuned to N* = 5000 at every event is crossed by 2.5 % at 50 %, and by most at 1 %.
    rng, runs, n = np.random.default_rng(3), 200, 5000
    fair = sum(asymptotic(rng.random(n) < 0.5, rng.normal(size=n)) for _ in range(runs)) / runs
    ramp = sum(asymptotic(rng.random(n) < 0.01, happens(rng, 0.01, n)) for _ in range(runs)) / runs
    assert fair < 0.5 < ramp


def test_the_evidence_is_not_idle_without_an_effect() -> None:
    # statistics.md 2.1: p = .05, pi = .5, N = 3000: P(E >= 20) = .0288. A check that never fires would prove nothing.
    rng, runs = np.random.default_rng(4), 600
    define = experiment(binary(), expected=0.0)
    hits = 0
    for _ in range(runs):
        _, batch = drawn(rng, 0.5, 3000)
        hits += reached(peak(folded(define, batch, happens(rng, 0.05, 3000))), ALPHA)
    assert hits / runs == pytest.approx(0.0288, abs=0.02)
