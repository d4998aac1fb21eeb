"""B1 and B2: published anchors, the definition of a boundary, and extreme values."""

import itertools
import math

import numpy as np
import pytest
from scipy import integrate

from gateway.stats import (
    gamma_exponential_boundary,
    gamma_exponential_log_e,
    normal_boundary,
    normal_boundary_one_sided,
    normal_log_e,
    normal_log_e_one_sided,
    normal_rho,
    one_sided_rho,
)


def test_anchors_of_confseq() -> None:
    # Unit tests of confseq (commit 70b1ef3): v = 100, alpha = .05, tuned to v_opt = 100 at .05.
    two_sided = normal_rho(100.0, 0.05)
    one_sided = one_sided_rho(100.0, 0.05)
    assert two_sided == pytest.approx(12.60056, abs=1e-5)
    assert normal_boundary(100.0, 0.05, rho=two_sided) == pytest.approx(30.35209, abs=1e-5)
    assert normal_boundary_one_sided(100.0, 0.05, rho=one_sided) == pytest.approx(27.66071, abs=1e-5)
    assert gamma_exponential_boundary(100.0, 0.05, rho=one_sided, c=2.0) == pytest.approx(33.02017, abs=1e-5)


@pytest.mark.parametrize("v", [0.0, 1e-9, 0.3, 40.0, 1e4, 1e8])
@pytest.mark.parametrize("alpha", [0.5, 0.05, 1e-3, 1e-12, 1e-300])
@pytest.mark.parametrize("rho", [0.05, 3.0, 200.0])
def test_evidence_on_the_boundary_is_one_over_alpha(v: float, alpha: float, rho: float) -> None:
    target = math.log(1.0 / alpha)
    u = normal_boundary(v, alpha, rho=rho)
    assert float(normal_log_e(u, v, rho=rho)) == pytest.approx(target, rel=1e-9)
    assert float(normal_log_e(-u, v, rho=rho)) == pytest.approx(target, rel=1e-9)
    u = normal_boundary_one_sided(v, alpha, rho=rho)
    assert float(normal_log_e_one_sided(u, v, rho=rho)) == pytest.approx(target, rel=1e-8)
    for c in (0.5, 1.0, 2.0):
        u = gamma_exponential_boundary(v, alpha, rho=rho, c=c)
        assert float(gamma_exponential_log_e(u, v, rho=rho, c=c)) == pytest.approx(target, rel=1e-7)


@pytest.mark.parametrize("rho", [0.02, 1.0, 50.0])
@pytest.mark.parametrize("v", [0.0, 0.2, 30.0])
@pytest.mark.parametrize("s", [-500.0, -30.0, -5.0, -0.3, 0.0, 0.3, 5.0, 30.0])
def test_gamma_exponential_is_the_mixture_it_claims_to_be(s: float, v: float, rho: float) -> None:
    # E = int_0^1 exp(t s - v(-log(1-t) - t)) f(t) dt with the truncated gamma density
    # f(t) ~ (1-t)^(rho-1) e^(-rho(1-t)) (Howard et al. 2021, proposition 9, c = 1); w = -log(1-t).
    def mixture(s: float, v: float) -> float:
        def integrand(w: float) -> float:
            t = -math.expm1(-w)
            return math.exp((s + v + rho) * t - (v + rho) * w - top)

        edges = np.concatenate([[0.0], np.geomspace(1e-4, 200.0 / (v + rho), 80)])
        top = float(np.max((s + v + rho) * -np.expm1(-edges) - (v + rho) * edges))
        parts = [integrate.quad(integrand, *pair, epsabs=1e-13)[0] for pair in itertools.pairwise(edges)]
        return math.log(math.fsum(parts)) + top

    expected = mixture(s, v) - mixture(0.0, 0.0)
    assert float(gamma_exponential_log_e(s, v, rho=rho)) == pytest.approx(expected, rel=1e-7, abs=1e-7)


def test_gamma_exponential_is_smooth_and_rising_where_the_incomplete_gamma_underflows() -> None:
    for v in (0.0, 2.0, 300.0, 1e5):
        rho = 4.0
        deep = np.linspace(-60.0 * math.sqrt(v + rho) - 10.0, 5.0 * math.sqrt(v + rho), 4000)
        log_e = gamma_exponential_log_e(deep, v, rho=rho)
        assert np.isfinite(log_e).all()
        assert (np.diff(log_e) > 0.0).all()
        assert np.diff(log_e).max() < 0.5


def test_the_normal_boundary_is_the_limit_of_the_gamma_exponential_one() -> None:
    for v in (1e6, 1e8):
        rho = one_sided_rho(v, 0.05)
        exact = gamma_exponential_boundary(v, 0.05, rho=rho)
        assert exact == pytest.approx(normal_boundary_one_sided(v, 0.05, rho=rho), rel=3e-3)


def test_evidence_starts_at_one_and_never_becomes_nan() -> None:
    v = np.array([0.0, 1e-300, 1e-12, 1.0, 1e8])[:, None]
    s = np.array([-1e8, -1e3, -1.0, -1e-300, 0.0, 1e-300, 1.0, 1e3, 1e8])
    for log_e in (normal_log_e, normal_log_e_one_sided, gamma_exponential_log_e):
        assert float(log_e(0.0, 0.0, rho=5.0)) == pytest.approx(0.0, abs=1e-12)
        assert np.isfinite(log_e(s, v, rho=5.0)).all()


def test_the_tuned_boundary_is_tightest_near_v_opt() -> None:
    at = [normal_boundary(100.0, 0.05, rho=normal_rho(100.0 * k, 0.05)) for k in (0.25, 0.5, 1.0, 2.0, 4.0)]
    assert min(at) == pytest.approx(at[2], rel=2e-3)


def test_out_of_range_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="rho"):
        normal_log_e(1.0, 1.0, rho=0.0)
    with pytest.raises(ValueError, match="finite"):
        gamma_exponential_log_e(math.nan, 1.0, rho=1.0)
    with pytest.raises(ValueError, match="negative"):
        normal_boundary(-1.0, 0.05, rho=1.0)
    with pytest.raises(ValueError, match="level"):
        normal_boundary_one_sided(1.0, 1.0, rho=1.0)
    with pytest.raises(ValueError, match="c must"):
        gamma_exponential_boundary(1.0, 0.05, rho=1.0, c=-1.0)
    with pytest.raises(ValueError, match="v_opt"):
        normal_rho(0.0, 0.05)
