"""Q5: is the challenger slower anywhere from the median to the 99th percentile? (rule R15)

Per quantile p the threshold q_p is the champion's p-quantile over *past* epochs; each unit's score is whether it
exceeded q_p. The threshold is fixed before the coin, so D1 is exact for "the share of units above q_p is no larger",
wrong as q_p may be as an estimate (Howard & Ramdas 2022 for quantiles by exceedances). The mean of the e-processes at
several p is an e-process for "slower nowhere" whatever their dependence. A time-out or an error is inf: it exceeds.

With a relative margin ``factor`` f the challenger is held against f q_p and the champion against q_p. Both scores are
fixed before the coin, so `harm` then means "slower by more than f" and `superiority` "slower by less than f": a pass.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import special

from gateway.stats.bets import harm
from gateway.stats.checks import checked_units
from gateway.stats.moments import epoch_length
from gateway.stats.score_process import AnyBet, ScoreCell
from gateway.stats.scores import exceedance
from gateway.stats.sketch import LogHistogram

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

QUANTILES: Final = (0.5, 0.9, 0.99)
_LARGEST: Final = sys.float_info.max
MIN_CHAMPION: Final = 500
"""Past values of the champion before its quantiles are good enough to bet on."""


class LatencyGuardrail:
    """Cells of exceedances at several quantiles of the champion's past, folded in log order.

    ``bets`` are placed at every quantile, on g = 1 - exceedance (bigger is better). Epochs are those of a cell:
    cut by the count of folded units, so cutting the stream into other calls changes no bit.
    Raises ValueError for an empty or repeated list of quantiles, one outside (0, 1), or factor < 1.
    """

    def __init__(
        self,
        bets: Mapping[str, AnyBet] | None = None,
        *,
        quantiles: Sequence[float] = QUANTILES,
        min_champion: int = MIN_CHAMPION,
        factor: float = 1.0,
    ) -> None:
        if not quantiles or len(set(quantiles)) < len(quantiles) or not all(0.0 < p < 1.0 for p in quantiles):
            raise ValueError(f"quantiles must be distinct and lie strictly between 0 and 1, not {quantiles!r}")
        if not 1.0 <= factor < math.inf:
            raise ValueError(f"factor must be at least 1, not {factor!r}")
        self._factor = factor
        self._bets = dict(bets) if bets is not None else {"harm": harm()}
        self._quantiles = tuple(quantiles)
        self._min_champion = min_champion
        self._champion = LogHistogram()
        self._cells = {p: ScoreCell(self._bets) for p in self._quantiles}
        self._thresholds: tuple[float, ...] = ()
        self._n = self._epoch_end = 0
        self._peak = dict.fromkeys(self._bets, 0.0)

    def fold(self, z: ArrayLike, pi: ArrayLike, y: ArrayLike) -> None:
        """Fold n units: challenger or not, propensity in (0, 1), latency in [0, inf]; shape (n,).

        Until the champion has enough past values nothing is staked: units only feed the sketch.
        Raises ValueError on NaN, negative or out-of-range values and unequal lengths, before anything changed.
        """
        values = np.asarray(y, dtype=np.float64)
        if not (values >= 0.0).all():
            raise ValueError("y must be numbers that are not negative")
        z_, pi_, _ = checked_units(z, pi, np.zeros(values.shape))
        begin = 0
        while begin < len(values):
            if self._n == self._epoch_end:
                self._start_epoch()
            end = min(begin + self._epoch_end - self._n, len(values))
            self._fold_part(z_[begin:end], pi_[begin:end], values[begin:end])
            begin = end

    @property
    def thresholds(self) -> dict[float, float]:
        """The champion's quantiles that the open epoch is judged by; empty before the first bet."""
        return dict(zip(self._quantiles, self._thresholds, strict=False))

    @property
    def champion(self) -> LogHistogram:
        """Sketch of all of the champion's values so far."""
        return self._champion

    def cell(self, p: float) -> ScoreCell:
        """The cell of one quantile: means and interval of the share that does not exceed it. KeyError if unknown."""
        return self._cells[p]

    def log_e(self, name: str) -> float:
        """Log of the mean of the e-processes over the quantiles: evidence of harm at any of them."""
        logs = [cell.log_e(name) for cell in self._cells.values()]
        return float(special.logsumexp(logs)) - math.log(len(logs))

    def peak_log_e(self, name: str) -> float:
        """Maximum of `log_e` over the start, every epoch end and now: harm latches on it."""
        return max(self._peak[name], self.log_e(name))

    def weakest_log_e(self, name: str) -> float:
        """The least e-process over the quantiles: a guardrail passes only if it passes at each (no alpha split)."""
        return min(cell.log_e(name) for cell in self._cells.values())

    def state(self) -> dict[str, Any]:
        """Plain dicts, lists, ints and finite floats; exact round trip."""
        return {
            "factor": self._factor,
            "n": self._n,
            "epoch_end": self._epoch_end,
            "champion": self._champion.state(),
            "thresholds": list(self._thresholds),
            "cells": [cell.state() for cell in self._cells.values()],
            "peak": dict(self._peak),
        }

    @classmethod
    def restore(
        cls,
        state: Mapping[str, Any],
        bets: Mapping[str, AnyBet] | None = None,
        *,
        quantiles: Sequence[float] = QUANTILES,
        min_champion: int = MIN_CHAMPION,
        factor: float = 1.0,
    ) -> LatencyGuardrail:
        """Inverse of `state`. Raises ValueError for a state of other bets, another factor or number of quantiles."""
        new = cls(bets, quantiles=quantiles, min_champion=min_champion, factor=factor)
        if state["factor"] != factor:
            raise ValueError(f"the state was folded with the factor {state['factor']!r}, not {factor!r}")
        if len(state["cells"]) != len(new._quantiles):
            raise ValueError(f"the state holds {len(state['cells'])} quantiles, not {len(new._quantiles)}")
        for p, cell in zip(new._quantiles, state["cells"], strict=True):
            new._cells[p] = ScoreCell.restore(new._bets, cell)
        new._n, new._epoch_end = int(state["n"]), int(state["epoch_end"])
        new._champion = LogHistogram.restore(state["champion"])
        new._thresholds = tuple(state["thresholds"])
        new._peak = {name: float(state["peak"][name]) for name in new._bets}
        return new

    def _start_epoch(self) -> None:
        self._epoch_end += epoch_length(self._n)
        self._peak = {name: self.peak_log_e(name) for name in self._peak}
        if self._champion.n >= self._min_champion:
            # Capped, so that a time-out exceeds also where the champion itself times out that often.
            self._thresholds = tuple(min(self._champion.quantile(p), _LARGEST) for p in self._quantiles)

    def _fold_part(self, z: NDArray[np.float64], pi: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        for p, threshold in zip(self._quantiles, self._thresholds, strict=False):
            limits = np.where(z == 1.0, min(threshold * self._factor, _LARGEST), threshold)
            self._cells[p].fold(z, pi, 1.0 - exceedance(y, limits))
        self._champion.add(y[z == 0.0])
        self._n += len(y)
