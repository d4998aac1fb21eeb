"""Anytime-valid statistics: pure, in log space, each with its theorem. See README.md."""

from gateway.stats.bands import BANDS, band_of, banded_boundary, banded_log_e
from gateway.stats.bets import (
    Bet,
    futility,
    harm,
    harm_beyond,
    non_inferiority,
    superiority,
    superiority_by,
)
from gateway.stats.binomial import (
    beta_binomial_boundary,
    beta_binomial_log_e,
    proportion_interval,
    quantile_ranks,
)
from gateway.stats.detector import EDetector, HoldbackDetector, LevelDetector
from gateway.stats.intervals import Interval, Method, overlap_interval, suggested_v_opt
from gateway.stats.latency import LatencyGuardrail
from gateway.stats.multiplicity import (
    anytime_p,
    benjamini_yekutieli,
    bonferroni_threshold,
    e_bh,
    e_holm,
    holm,
    spent_alpha,
)
from gateway.stats.paired import PairedCell, paired_log_e
from gateway.stats.power import (
    PassCost,
    detectable_effect,
    expected_units,
    information,
    information_gaussian,
    least_units,
    non_inferiority_cost,
)
from gateway.stats.relative import RelativeBet, relative_harm, relative_non_inferiority
from gateway.stats.score_process import AnyBet, ScoreCell
from gateway.stats.scores import Reference, count_score, exceedance, ratio_score, winsorised_score
from gateway.stats.sequences import (
    gamma_exponential_boundary,
    gamma_exponential_log_e,
    normal_boundary,
    normal_boundary_one_sided,
    normal_log_e,
    normal_log_e_one_sided,
    normal_rho,
    one_sided_rho,
)
from gateway.stats.shards import EpochShard, Frozen
from gateway.stats.sketch import LogHistogram
from gateway.stats.srm import SampleRatio

__all__ = [
    "BANDS",
    "AnyBet",
    "Bet",
    "EDetector",
    "EpochShard",
    "Frozen",
    "HoldbackDetector",
    "Interval",
    "LatencyGuardrail",
    "LevelDetector",
    "LogHistogram",
    "Method",
    "PairedCell",
    "PassCost",
    "Reference",
    "RelativeBet",
    "SampleRatio",
    "ScoreCell",
    "anytime_p",
    "band_of",
    "banded_boundary",
    "banded_log_e",
    "benjamini_yekutieli",
    "beta_binomial_boundary",
    "beta_binomial_log_e",
    "bonferroni_threshold",
    "count_score",
    "detectable_effect",
    "e_bh",
    "e_holm",
    "exceedance",
    "expected_units",
    "futility",
    "gamma_exponential_boundary",
    "gamma_exponential_log_e",
    "harm",
    "harm_beyond",
    "holm",
    "information",
    "information_gaussian",
    "least_units",
    "non_inferiority",
    "non_inferiority_cost",
    "normal_boundary",
    "normal_boundary_one_sided",
    "normal_log_e",
    "normal_log_e_one_sided",
    "normal_rho",
    "one_sided_rho",
    "overlap_interval",
    "paired_log_e",
    "proportion_interval",
    "quantile_ranks",
    "ratio_score",
    "relative_harm",
    "relative_non_inferiority",
    "spent_alpha",
    "suggested_v_opt",
    "superiority",
    "superiority_by",
    "winsorised_score",
]
