"""Paired evidence: both variants scored on the same unit, as in shadow mode or for logged predictions (P1; rule R18).

With D in [-1, 1] the difference "challenger minus champion" of one unit and E[D | past] <= shift for every unit,
``prod (1 + kappa (D - shift))`` is a nonnegative supermartingale for kappa >= 0 known before the unit and at most
0.9/(1 + shift): no coin is needed, only that units are drawn without looking at D (hash-sampled, one per
user and window). Waudby-Smith & Ramdas 2024, JRSS B, with a mixture over stakes; for wins and losses alone the
sequential McNemar test `paired_log_e`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gateway.stats.bands import BANDS, band_of
from gateway.stats.bets import EFFECT_MULTIPLES, GENERIC_SIZES, MAX_LOSS, Bet
from gateway.stats.binomial import log_incomplete_beta
from gateway.stats.intervals import Interval, overlap_interval
from gateway.stats.moments import epoch_length
from gateway.stats.wealth import Wealth

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]


def paired_log_e(wins: int, losses: int, *, one_sided: bool = True, prior: float = 0.5) -> float:
    """P1: evidence that, where exactly one of the two succeeds, it is the challenger more often.

    Beta(prior, prior) mixture of ``2^(b+c) p^b (1-p)^c`` over p > 1/2 (one-sided: H0 p <= 1/2, what a verdict uses)
    or over all p (H0 p = 1/2). ``wins`` b and ``losses`` c are integers, exactly mergeable; ties carry no
    evidence. Natural log. Raises ValueError for negative counts or prior <= 0.
    """
    if min(wins, losses) < 0 or not prior > 0.0:
        raise ValueError(f"counts must not be negative and prior positive, not {wins!r}, {losses!r}, {prior!r}")
    x = 0.5 if one_sided else 1.0
    mixed = log_incomplete_beta(prior + losses, prior + wins, x) - log_incomplete_beta(prior, prior, x)
    return mixed + (wins + losses) * math.log(2.0)


@dataclass(slots=True)
class _PairMoments:
    """Sums of D, and the mean and variance that the open epoch's stakes use."""

    n: int = 0
    total: float = 0.0
    residual: float = 0.0
    epoch_end: int = 0
    mean: float = 0.0
    variance: float = 1.0
    v: float = 0.0
    below: list[float] = field(default_factory=lambda: [0.0] * len(BANDS))
    above: list[float] = field(default_factory=lambda: [0.0] * len(BANDS))

    def start_epoch(self) -> None:
        self.epoch_end = self.n + epoch_length(self.n)
        self.mean = self.total / self.n if self.n else 0.0
        self.variance = (1.0 + self.residual) / (self.n + 1.0)

    def add(self, d: Floats) -> None:
        error = d - self.mean
        square = error * error
        # For D/2 the range is 1 wide: (1 +- mean)/2 lies below and above the prediction mean/2.
        self.total = float(np.add.accumulate(np.append(self.total, d))[-1])
        self.residual = float(np.add.accumulate(np.append(self.residual, square))[-1])
        self.v = float(np.add.accumulate(np.append(self.v, 0.25 * square))[-1])
        for sums, reach in ((self.below, 0.5 * (1.0 + self.mean)), (self.above, 0.5 * (1.0 - self.mean))):
            band = int(band_of(reach))
            sums[band] = float(np.add.accumulate(np.append(sums[band], 0.25 * square))[-1])
        self.n += len(d)


class PairedCell:
    """Evidence of one stream of paired differences, folded in the order of their units.

    ``bets`` are those of `bets` with the effect and shift in units of D. Raises ValueError when empty.
    """

    def __init__(self, bets: Mapping[str, Bet]) -> None:
        if not bets:
            raise ValueError("a cell needs at least one bet")
        self._bets = dict(bets)
        self._moments = _PairMoments()
        self._wealth = {name: Wealth(bet) for name, bet in bets.items()}

    def fold(self, d: ArrayLike) -> None:
        """Fold n differences in [-1, 1], shape (n,); cutting the stream into other calls changes no bit.

        Raises ValueError for another shape, NaN or a value out of range, before anything changed.
        """
        values = np.asarray(d, dtype=np.float64)
        if values.ndim != 1 or not (np.abs(values) <= 1.0).all():
            raise ValueError("d must be 1-d and lie in [-1, 1]")
        begin = 0
        while begin < len(values):
            known = self._moments
            if known.n == known.epoch_end:
                known.start_epoch()
            part = values[begin : begin + known.epoch_end - known.n]
            for name, bet in self._bets.items():
                gains = bet.sign * (part - bet.shift)
                self._wealth[name].advance(_stakes(bet, known.variance)[:, None] * gains)
            known.add(part)
            begin += len(part)

    @property
    def n(self) -> int:
        """Pairs folded."""
        return self._moments.n

    @property
    def mean(self) -> float:
        """Mean of D; nan before the first pair."""
        return self._moments.total / self._moments.n if self._moments.n else math.nan

    def log_e(self, name: str) -> float:
        """Current natural log of the e-value of a bet."""
        return self._wealth[name].log_e

    def peak_log_e(self, name: str) -> float:
        """Maximum of `log_e` over the start (0) and every pair."""
        return self._wealth[name].peak

    def interval(self, alpha: float, *, v_opt: float) -> Interval:
        """Exact confidence sequence for the running mean of E[D | past], clipped to [-1, 1] (`bands` on D/2).

        ``v_opt`` in units of a sum of (D/2)^2: about ``10 (variance/effect)^2/4``, fixed in advance.
        """
        known = self._moments
        ranges = known.below, known.above
        half = 0.5 * known.total, 0.5 * known.n
        return overlap_interval(*half, known.v, alpha=alpha, v_opt=v_opt, v_by_range=ranges)

    def state(self) -> dict[str, Any]:
        """Plain dicts, lists, ints and finite floats; exact round trip."""
        bets = {name: wealth.state() for name, wealth in self._wealth.items()}
        return {"moments": asdict(self._moments), "bets": bets}

    @classmethod
    def restore(cls, bets: Mapping[str, Bet], state: Mapping[str, Any]) -> PairedCell:
        """Inverse of `state`. Raises ValueError for a state of other bets."""
        if set(state["bets"]) != set(bets):
            raise ValueError(f"the state holds the bets {sorted(state['bets'])}, not {sorted(bets)}")
        cell = cls(bets)
        moments = {**state["moments"], "below": list(state["moments"]["below"])}
        cell._moments = _PairMoments(**{**moments, "above": list(state["moments"]["above"])})
        for name, wealth in cell._wealth.items():
            wealth.load(state["bets"][name])
        return cell


def _stakes(bet: Bet, variance: float) -> Floats:
    """kappa of the K stakes: the grid in units of D's sd, at most 0.9 over the largest loss 1 + sign shift."""
    if bet.effect is None:
        wanted = np.array(GENERIC_SIZES) / math.sqrt(variance)
    else:
        wanted = np.array(EFFECT_MULTIPLES) * (bet.effect / variance)
    return np.asarray(np.minimum(wanted, MAX_LOSS / (1.0 + bet.sign * bet.shift)), dtype=np.float64)
