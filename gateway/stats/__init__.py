"""Anytime-valid statistics: pure, in log space, each with its theorem. See README.md."""

from gateway.stats.bets import (
    Bet,
    futility,
    harm,
    harm_beyond,
    non_inferiority,
    superiority,
    superiority_by,
)
from gateway.stats.intervals import Interval, Method, overlap_interval, suggested_v_opt
from gateway.stats.multiplicity import bonferroni_threshold
from gateway.stats.score_process import ScoreCell
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
from gateway.stats.srm import SampleRatio

__all__ = [
    "Bet",
    "Interval",
    "Method",
    "SampleRatio",
    "ScoreCell",
    "bonferroni_threshold",
    "futility",
    "gamma_exponential_boundary",
    "gamma_exponential_log_e",
    "harm",
    "harm_beyond",
    "non_inferiority",
    "normal_boundary",
    "normal_boundary_one_sided",
    "normal_log_e",
    "normal_log_e_one_sided",
    "normal_rho",
    "one_sided_rho",
    "overlap_interval",
    "suggested_v_opt",
    "superiority",
    "superiority_by",
]
