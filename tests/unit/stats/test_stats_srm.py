"""S2: exact merging, a martingale by enumeration, false alarms and detection."""

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.stats import SampleRatio, bonferroni_threshold

counts = st.lists(
    st.tuples(st.sampled_from([0.01, 0.1, 1 / 3, 0.5, 0.9]), st.integers(0, 10**9), st.floats(0.0, 1.0)),
    max_size=6,
)


def built(parts: list[tuple[float, int, float]]) -> SampleRatio:
    ratio = SampleRatio()
    for pi, n, share in parts:
        ratio.add_counts(pi, n, int(n * share))
    return ratio


@given(counts, counts, counts)
def test_merging_is_a_commutative_monoid_down_to_the_last_bit(a: list[Any], b: list[Any], c: list[Any]) -> None:
    x, y, z = built(a), built(b), built(c)
    assert x.merge(y) == y.merge(x)
    assert x.merge(y).merge(z) == x.merge(y.merge(z))
    assert x.merge(SampleRatio()) == x
    assert x.merge(y).log_e() == y.merge(x).log_e()
    assert math.isfinite(x.log_e())


@given(counts)
def test_the_state_round_trips_through_json(parts: list[Any]) -> None:
    ratio = built(parts)
    restored = SampleRatio.restore(json.loads(json.dumps(ratio.state())))
    assert restored == ratio
    assert restored.log_e() == ratio.log_e()


@given(st.lists(st.tuples(st.sampled_from([0.01, 0.1, 0.5]), st.booleans()), max_size=60), st.integers(0, 60))
def test_arrays_counts_and_any_cut_agree(units: list[tuple[float, bool]], cut: int) -> None:
    whole, parts, single = SampleRatio(), SampleRatio(), SampleRatio()
    for target, chunk in ((whole, units), (parts, units[:cut]), (parts, units[cut:])):
        target.add([pi for pi, _ in chunk], [z for _, z in chunk])
    for pi, z in units:
        single.add_counts(pi, 1, int(z))
    assert whole == parts == single
    assert (whole.n, whole.observed) == (len(units), sum(z for _, z in units))
    assert whole.expected == pytest.approx(sum(pi for pi, _ in units))


def test_the_e_value_has_mean_one_under_sound_coins() -> None:
    splits = (0.01, 0.3, 0.3, 0.5, 0.9)
    mean = 0.0
    for coins in itertools.product((0, 1), repeat=len(splits)):
        ratio = SampleRatio()
        ratio.add(splits, coins)
        chance = math.prod(pi if z else 1.0 - pi for pi, z in zip(splits, coins, strict=True))
        mean += chance * math.exp(ratio.log_e())
    assert mean == pytest.approx(1.0, abs=1e-12)


def test_extreme_counts_stay_finite() -> None:
    ratio = SampleRatio()
    assert ratio.log_e() == 0.0
    ratio.add_counts(1e-9, 10**15, 10**15)
    assert 1e14 < ratio.log_e() < math.inf


def first_alarm(rng: np.random.Generator, split: np.ndarray, kept: float, threshold: float) -> int | None:
    """Units until the alarm when a challenger unit is recorded with probability ``kept``; looks every 100."""
    z = rng.random(len(split)) < split
    recorded = ~z | (rng.random(len(split)) < kept)
    split, z = split[recorded], z[recorded]
    ratio = SampleRatio()
    for begin in range(0, len(z), 100):
        ratio.add(split[begin : begin + 100], z[begin : begin + 100])
        if ratio.log_e() >= threshold:
            return begin + 100
    return None


def test_healthy_ramps_hardly_ever_alarm() -> None:
    rng = np.random.default_rng(5)
    ramp = np.repeat([0.01, 0.1, 0.5], [2000, 2000, 4000])
    alarms = sum(first_alarm(rng, ramp, 1.0, bonferroni_threshold(0.01)) is not None for _ in range(400))
    assert alarms / 400 <= 0.01 + 2.33 * math.sqrt(0.01 * 0.99 / 400)


def test_a_tenth_of_the_challenger_lost_is_found_in_time() -> None:
    rng = np.random.default_rng(6)
    share = 0.45 / 0.95
    divergence = share * math.log(share / 0.5) + (1.0 - share) * math.log((1.0 - share) / 0.5)
    bound = bonferroni_threshold(0.001) / divergence
    found = [first_alarm(rng, np.full(20_000, 0.5), 0.9, bonferroni_threshold(0.001)) for _ in range(60)]
    assert None not in found
    assert np.mean([n for n in found if n is not None]) <= 1.6 * bound


def test_bad_input_changes_nothing() -> None:
    ratio = SampleRatio()
    ratio.add(0.5, [True, False])
    before = ratio.state()
    for pi, z in ((0.0, [1]), (1.0, [1]), (math.nan, [1]), ([0.5, 0.5], [1]), (0.5, [2]), (0.5, [math.nan])):
        with pytest.raises(ValueError, match="must"):
            ratio.add(pi, z)
    for n, n1 in ((-1, 0), (1, 2), (1, -1)):
        with pytest.raises(ValueError, match="counts"):
            ratio.add_counts(0.5, n, n1)
    with pytest.raises(ValueError, match="pi"):
        ratio.add_counts(1.0, 1, 0)
    assert ratio.state() == before


def test_bonferroni_threshold() -> None:
    assert bonferroni_threshold(0.05) == pytest.approx(math.log(20.0))
    assert bonferroni_threshold(0.05, 20) == pytest.approx(math.log(400.0))
    for alpha, k in ((0.0, 1), (1.0, 1), (0.05, 0), (math.nan, 1)):
        with pytest.raises(ValueError, match="must"):
            bonferroni_threshold(alpha, k)
