"""How the stream of votes is cut, and where the process is started anew, changes no bit of any part."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.evidence.batch import Batch, Floats, Units
from gateway.evidence.cells import Evidence
from gateway.evidence.definition import Definition, MetricDefinition
from gateway.evidence.fold import fold_pairs, fold_values
from gateway.evidence.parts import key_of, text_of
from gateway.evidence.report import CYCLE, LAST_CYCLE, WATCH
from gateway.evidence.verdict import judge
from gateway.stats import ScoreCell
from tests.unit.evidence.world import BRIER, ERRORS, LATENCY, THRESHOLDS, definition

N = 2600  # the champion's thousandth value comes within
REVENUE = replace(BRIER, name="revenue", type="unbounded", increase=True, scale="winsorised", margin=0.1)
RANKED = replace(REVENUE, name="ranked", scale="rank", missing="zero", margin=None)
CLICKS = replace(BRIER, name="clicks", type="count", aggregate="sum", high=20.0, missing="zero")
VIEWS = replace(CLICKS, name="views", high=50.0)
RATIO = replace(BRIER, name="ratio", type="ratio", numerator="clicks", denominator="views", increase=True)
SLOWER = replace(LATENCY, name="slower", margin=None, relative_margin=0.1)
RELATIVE = replace(CLICKS, name="relative", relative_margin=0.2, floor=0.1)
SCORE = replace(BRIER, name="score", type="score")
KINDS = (BRIER, ERRORS, LATENCY, REVENUE, RANKED, CLICKS, VIEWS, RATIO, SLOWER, RELATIVE)


def everything(objective: MetricDefinition = BRIER, **more: Any) -> Definition:
    metrics = KINDS if objective in KINDS else (objective, *KINDS)
    given: dict[str, Any] = {"challengers": ("b", "c"), "cycle_us": 400, "covariates": 2, "holdback": True}
    return replace(definition(*metrics, objective=objective.name), **given | more)


def crowd(n: int = N, seed: int = 1) -> Batch:
    rng = np.random.default_rng(seed)
    odds = np.array([(0.5, 0.25, 0.25), (0.6, 0.4, 0.0), (0.0, 0.5, 0.5), (1 / 3, 0.0, 2 / 3)])[
        rng.choice(4, n, p=[0.7, 0.1, 0.1, 0.1])
    ]
    stages = np.where(np.arange(n) < n // 2, "s1", "s2").astype("<U5")
    stages[-n // 5 :] = np.where(rng.random(n // 5) < 0.7, WATCH, "s2")  # workers change over at different moments
    return Batch(
        at=np.arange(n) + 1000,
        stages=stages,
        arms=(rng.random((n, 1)) < odds.cumsum(axis=1)).argmax(axis=1).astype(np.int64),
        odds=odds,
        segments=np.array([json.dumps([name]) for name in rng.choice(["EWR", "JFK", "a/b=c"], n)], dtype=np.object_),
        x=rng.normal(size=(n, 2)),
    )


def values_of(metric: MetricDefinition, batch: Batch, seed: int = 2) -> Floats:
    rng = np.random.default_rng(seed)
    n, missing = len(batch), rng.random(len(batch)) < 0.1
    kinds: dict[str, Any] = {
        "bounded": lambda: np.clip(rng.normal(0.5 + 0.1 * (batch.arms == 2), 0.2), -0.1, 1.1),
        "score": lambda: rng.random(n) * 1.1,
        "binary": lambda: (rng.random(n) < 0.1).astype(float),
        "latency": lambda: np.where(rng.random(n) < 0.02, np.inf, rng.lognormal(12, 0.4, n)),
        "unbounded": lambda: np.where(rng.random(n) < 0.6, 0.0, rng.lognormal(3, 1.5, n) * rng.choice([-1, 1], n)),
        "count": lambda: rng.poisson(4, n).astype(float),
        "ratio": lambda: np.stack([rng.poisson(4, n), rng.poisson(30, n)], axis=1).astype(float),
    }
    values: Floats = kinds[metric.type]()
    values[missing] = np.nan
    return values


def folded(define: Definition, cuts: list[int], *, restarts: bool) -> tuple[dict[str, bytes], Evidence]:
    batch = crowd()
    values = {metric.name: values_of(metric, batch) for metric in define.metrics}
    losses = np.random.default_rng(3).random((N, 3)) * 1.2
    losses[np.random.default_rng(4).random((N, 3)) < 0.1] = np.nan
    evidence, states = Evidence(define), dict[str, bytes]()
    for part in _parts(cuts):
        chosen = np.zeros(N, dtype=np.bool_)
        chosen[part] = True
        some = batch.where(chosen)
        evidence.fold_coins(some.arms.tolist(), some.odds.tolist())
        for metric in define.metrics:
            fold_values(evidence, metric, some, values[metric.name][part])
            if define.paired and metric.name == define.objective:
                fold_pairs(evidence, metric, some, losses[part])
        states |= evidence.take_changes()
        if restarts:
            evidence = Evidence.restore(define, states)
    return states, evidence


def _parts(cuts: list[int]) -> Iterator[slice]:
    ends = sorted({0, *cuts, N})
    return (slice(begin, end) for begin, end in pairwise(ends))


DEFINITIONS = {
    "by coins": everything(),
    "by pairs": everything(SCORE, paired=True, covariates=0),
    "a ratio": everything(RATIO),
    "the winsorised": everything(REVENUE, require_min_effect=True),
}


@cache
def whole(name: str) -> tuple[dict[str, bytes], Evidence]:
    """All at once."""
    return folded(DEFINITIONS[name], [], restarts=False)


@pytest.mark.parametrize("name", sorted(DEFINITIONS))
@settings(max_examples=4, deadline=None)
@given(cuts=st.lists(st.integers(1, N - 1), max_size=12), restarts=st.booleans())
def test_cuts_and_restarts_change_no_bit(name: str, cuts: list[int], restarts: bool) -> None:
    states, evidence = folded(DEFINITIONS[name], cuts, restarts=restarts)
    assert states == whole(name)[0]
    assert judge(evidence, THRESHOLDS, 1, 1) == judge(whole(name)[1], THRESHOLDS, 1, 1)


def test_single_votes_change_no_bit() -> None:
    places = list(range(380, 420)) + list(range(N - 200, N))
    assert folded(DEFINITIONS["by coins"], places, restarts=False)[0] == whole("by coins")[0]


def test_every_kind_of_part_was_there() -> None:
    kinds = {key_of(text)[0] for name in DEFINITIONS for text in whole(name)[0]}
    assert kinds == {"cell", "quantiles", "mean", "watch", "scorer", "coins", "ratio", "tally"}
    segments = {key_of(text)[3] for text in whole("by coins")[0] if text.startswith("cell/2/brier/")}
    assert segments == {"", "worst", CYCLE, LAST_CYCLE, WATCH, "origin=EWR", "origin=JFK", "origin=a/b=c"}


def test_no_cell_takes_more_than_its_budget() -> None:
    define = replace(DEFINITIONS["by coins"], covariates=0)
    cells = {text: len(state) for text, state in folded(define, [], restarts=False)[0].items() if text[:4] == "cell"}
    assert max(cells.values()) <= 1100


@given(st.text(max_size=30), st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True), st.integers(0, 20))
def test_keys_survive_any_segment(value: str, name: str, arm: int) -> None:
    for key in (
        ("cell", str(arm), name, f"{name}={value}"),
        ("cell", str(arm), name, ""),
        ("ratio", str(arm), name),
        ("coins", str(arm)),
        ("scorer", name),
        ("tally",),
    ):
        assert key_of(text_of(key)) == key


def test_a_restored_cell_of_other_bets_is_refused() -> None:
    states, _ = whole("by coins")
    with pytest.raises(ValueError, match="bet"):
        Evidence.restore(replace(DEFINITIONS["by coins"], expected_effect=0.2), states)


def test_intervals_follow_their_cell() -> None:
    evidence = Evidence(definition())
    units = Units(np.array([True, False] * 50), np.full(100, 0.5), np.linspace(0.0, 1.0, 100))
    evidence.fold(1, BRIER, "", units)
    first = evidence.interval(1, BRIER, "", 0.05)
    assert evidence.interval(1, BRIER, "", 0.05) is first
    assert evidence.interval(1, BRIER, "", 0.01) != first
    evidence.fold(1, BRIER, "", units)
    cell = evidence.cell(1, BRIER)
    assert isinstance(cell, ScoreCell)
    assert evidence.interval(1, BRIER, "", 0.05) == cell.interval(0.05, v_opt=evidence.definition.v_opt(BRIER)) != first
