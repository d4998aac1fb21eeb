"""The parts of which evidence consists, by key: how each is made, and restored from its state.

A key is a kind and what tells a part apart within it; as text, in the store, it is joined by "/". Arms are numbers
(0 is the champion), metrics have names without "/", and a segment, which may contain anything, comes last.

    cell/ARM/METRIC/SEGMENT   e-processes of one challenger in one metric: overall, in one segment, with the worst
                              value where an outcome is missing (rule R14), in one business cycle, or in the watch
    quantiles/ARM/METRIC      a latency held to its quantiles (R15)
    mean/ARM/METRIC           the mean of an unbounded metric, as information
    watch/ARM/METRIC          the detector after a promotion
    scorer/METRIC             the scale of an unbounded metric or a ratio
    coins/ARM                 do units arrive as their coins promise?
    ratio/ARM/METRIC          and units with an outcome?
    tally                     counts (`cells.Evidence`)
"""

from __future__ import annotations

from typing import Any

from gateway.evidence.definition import HARM, PROMOTE, Definition, MetricDefinition
from gateway.evidence.means import MeanCell
from gateway.evidence.report import CYCLE, LAST_CYCLE, OVERALL, WATCH, WORST
from gateway.evidence.scoring import Scorer
from gateway.stats import (
    AnyBet,
    Bet,
    HoldbackDetector,
    LatencyGuardrail,
    PairedCell,
    SampleRatio,
    ScoreCell,
    harm,
)

Cell = ScoreCell | PairedCell
Key = tuple[str, ...]

TALLY: Key = ("tally",)
_LENGTHS = {"tally": 1, "scorer": 2, "coins": 2, "ratio": 3, "quantiles": 3, "mean": 3, "watch": 3, "cell": 4}


def text_of(key: Key) -> str:
    return "/".join(key)


def key_of(text: str) -> Key:
    return tuple(text.split("/", _LENGTHS[text.partition("/")[0]] - 1))


def made(definition: Definition, key: Key) -> Any:
    """An empty part."""
    kind = key[0]
    if kind in ("coins", "ratio"):
        return SampleRatio()
    if kind == "mean":
        return MeanCell()
    if kind == "scorer":
        return _scorer(definition, definition.metric(key[1]))
    metric = definition.metric(key[2])
    if kind == "quantiles":
        return LatencyGuardrail(definition.latency_bets(), factor=_factor(metric))
    if kind == "watch":
        return HoldbackDetector(_harm(definition, metric))
    bets = _bets(definition, metric, key[3])
    if _paired(definition, metric, key[3]):
        return PairedCell(_plain(bets))
    adjusted = metric.name == definition.objective and key[3] == OVERALL
    return ScoreCell(bets, covariates=definition.covariates if adjusted else 0)


def restored(definition: Definition, key: Key, state: Any) -> Any:
    """A part as it was; raises ValueError if the definition bets otherwise now."""
    kind = key[0]
    if kind in ("coins", "ratio"):
        return SampleRatio.restore(state)
    if kind == "mean":
        return MeanCell.restore(state)
    if kind == "scorer":
        scorer = _scorer(definition, definition.metric(key[1]))
        scorer.load(state)
        return scorer
    metric = definition.metric(key[2])
    if kind == "quantiles":
        return LatencyGuardrail.restore(state, definition.latency_bets(), factor=_factor(metric))
    if kind == "watch":
        return HoldbackDetector.restore(_harm(definition, metric), state)
    bets = _bets(definition, metric, key[3])
    if _paired(definition, metric, key[3]):
        return PairedCell.restore(_plain(bets), state)
    return ScoreCell.restore(bets, state)


def _scorer(definition: Definition, metric: MetricDefinition) -> Scorer:
    if metric.type != "ratio":
        return Scorer(metric)
    return Scorer(metric, (definition.metric(metric.numerator).high, definition.metric(metric.denominator).high))


def _paired(definition: Definition, metric: MetricDefinition, segment: str) -> bool:
    """A paired objective has cells of pairs, but in the watch: shadows are over then."""
    return definition.paired and metric.name == definition.objective and segment != WATCH


def _bets(definition: Definition, metric: MetricDefinition, segment: str) -> dict[str, AnyBet]:
    bets = definition.bets(metric)
    if segment == OVERALL:
        return {HARM: harm()} if metric.by_quantiles else bets
    if segment == WORST:
        return {PROMOTE: bets[PROMOTE]}
    if segment in (CYCLE, LAST_CYCLE, WATCH):
        return {HARM: harm()}
    return {name: bet for name, bet in bets.items() if name in (HARM, PROMOTE)}


def _plain(bets: dict[str, AnyBet]) -> dict[str, Bet]:
    return {name: bet for name, bet in bets.items() if isinstance(bet, Bet)}


def _harm(definition: Definition, metric: MetricDefinition) -> AnyBet:
    return harm() if metric.by_quantiles else definition.bets(metric)[HARM]


def _factor(metric: MetricDefinition) -> float:
    return 1.0 + (metric.relative_margin or 0.0)
