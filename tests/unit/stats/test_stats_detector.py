"""E-detectors: the recursions themselves, average run length, delay, states."""

import itertools
import json
import math

import numpy as np
import pytest

from gateway.stats import Bet, EDetector, HoldbackDetector, LevelDetector, harm


def naive(weights: list[float], gains: np.ndarray) -> tuple[list[float], list[float]]:
    """SR and CUSUM unit by unit, not in log space, mixed after the recursion."""
    sr, cusum, out = np.zeros(len(weights)), np.zeros(len(weights)), ([], [])  # type: ignore[var-annotated]
    for column in gains.T:
        sr = (1.0 + column) * (1.0 + sr)
        cusum = (1.0 + column) * np.maximum(1.0, cusum)
        out[0].append(math.log(float(np.dot(weights, sr))))
        out[1].append(math.log(float(np.dot(weights, cusum))))
    return out


def test_the_detector_is_the_recursion() -> None:
    rng = np.random.default_rng(1)
    gains = rng.uniform(-0.5, 0.55, (3, 400))
    detector = EDetector([0.2, 0.3, 0.5])
    assert detector.log_sr == detector.log_cusum == -math.inf
    sr, cusum = naive([0.2, 0.3, 0.5], gains)
    for i in range(400):
        detector.advance(gains[:, i : i + 1])
        assert detector.log_sr == pytest.approx(sr[i], abs=1e-9)
        assert detector.log_cusum == pytest.approx(cusum[i], abs=1e-9)
    assert detector.peak_log_sr == pytest.approx(max(sr), abs=1e-9)
    assert detector.peak_log_cusum == pytest.approx(max(cusum), abs=1e-9)


def test_the_mean_of_sr_is_the_time() -> None:
    # E[M_t] = t for fair factors: all 2^8 paths of a coin that pays +-40 %.
    mean = 0.0
    for path in itertools.product((-0.4, 0.4), repeat=8):
        detector = EDetector([1.0])
        detector.advance(np.array([path]))
        mean += math.exp(detector.log_sr) / 2**8
    assert mean == pytest.approx(8.0, abs=1e-9)


def first_alarm(rng: np.random.Generator, rate: float, c: float, limit: int) -> tuple[int, int]:
    """Units until SR and CUSUM alarm, to within 20."""
    detector, found = LevelDetector(0.01), [limit, limit]
    for end in range(20, limit, 20):
        detector.fold((rng.random(20) < rate).astype(float))
        peaks = detector.detector.peak_log_sr, detector.detector.peak_log_cusum
        found = [min(old, end) if peak >= math.log(c) else old for old, peak in zip(found, peaks, strict=True)]
        if max(found) < limit:
            break
    return found[0], found[1]


def test_run_length_without_a_change_and_delay_after_one() -> None:
    rng = np.random.default_rng(2)
    quiet = np.array([first_alarm(rng, 0.01, 300.0, 6000) for _ in range(60)])
    assert (quiet.mean(axis=0) >= 300.0 * (1.0 - 2.33 / math.sqrt(60))).all()
    delay = np.array([first_alarm(rng, 0.03, 1e5, 6000) for _ in range(60)])
    bound = math.log(1e5) / (0.03 * math.log(3.0) + 0.97 * math.log(0.97 / 0.99))
    assert (delay.mean(axis=0) <= 1.2 * bound).all()


def holdback(rng: np.random.Generator, n: int, worse: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    season = 0.05 * (1.0 + 0.5 * np.sin(np.arange(n) / 200.0))
    z = rng.random(n) < 0.95
    return z, np.full(n, 0.95), 1.0 - (rng.random(n) < season + worse * z)


def test_a_holdback_ignores_seasons_and_sees_a_regression() -> None:
    rng = np.random.default_rng(3)
    alarms = 0
    for _ in range(30):
        detector = HoldbackDetector(harm())
        detector.fold(*holdback(rng, 3000, 0.0))
        alarms += detector.detector.peak_log_sr >= math.log(1e5)
    assert alarms == 0
    detector = HoldbackDetector(harm())
    detector.fold(*holdback(rng, 3000, 0.0))
    detector.fold(*holdback(rng, 6000, 0.2))
    assert detector.detector.peak_log_cusum >= math.log(1e5)


def test_any_chunking_and_any_restart_gives_the_same_bits() -> None:
    z, pi, g = holdback(np.random.default_rng(4), 5000, 0.02)
    whole, parts = HoldbackDetector(harm()), HoldbackDetector(harm())
    whole.fold(z, pi, g)
    for begin, end in itertools.pairwise([0, 0, 1, 700, 4096, 4100, 5000]):
        parts.fold(z[begin:end], pi[begin:end], g[begin:end])
        parts = HoldbackDetector.restore(harm(), json.loads(json.dumps(parts.state(), allow_nan=False)))
    assert whole.state() == parts.state()


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="weights"):
        EDetector([0.5, 0.6])
    with pytest.raises(ValueError, match="baseline"):
        LevelDetector(0.0)
    detector = LevelDetector(0.1)
    detector.fold([])
    for x in ([1.5], [math.nan], [[0.0]]):
        with pytest.raises(ValueError, match="x must"):
            detector.fold(x)
    assert detector.detector.n == 0
    other = HoldbackDetector(harm())
    other.fold([True], [0.5], [1.0])
    with pytest.raises(ValueError, match="another bet"):
        HoldbackDetector.restore(Bet(1), other.state())
    with pytest.raises(ValueError, match="stakes"):
        EDetector([1.0]).load(other.detector.state())
