"""The mergeable form: any sharding of an epoch is one epoch, exactly in the integers (G14)."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.stats import (
    AnyBet,
    EpochShard,
    ScoreCell,
    harm,
    non_inferiority,
    relative_non_inferiority,
    superiority,
)

BETS: dict[str, AnyBet] = {
    "up": superiority(0.05),
    "ni": non_inferiority(0.1),
    "down": harm(),
    "relative": relative_non_inferiority(0.1, bigger_is_better=False, floor=0.01),
}


def stream(seed: int, n: int, binary: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    pi = rng.choice([0.05, 0.5, 0.9], n)
    g = rng.random(n)
    return rng.random(n) < pi, pi, (g < 0.2).astype(float) if binary else g


def numbers(cell: ScoreCell) -> dict[str, float]:
    state = cell.state()
    flat = {f"{name}{i}": x for name, bet in state["bets"].items() for i, x in enumerate(bet["log_wealth"])}
    for name, value in state["moments"].items():
        if name not in ("epoch_end", "offset"):
            flat |= {f"{name}{i}": x for i, x in enumerate(value)} if isinstance(value, list) else {name: value}
    return flat


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 999),
    n=st.integers(1, 400),
    parts=st.integers(1, 6),
    started=st.booleans(),
    binary=st.booleans(),
)
def test_any_sharding_in_any_order_is_the_same_epoch(
    seed: int, n: int, parts: int, started: bool, binary: bool
) -> None:
    z, pi, g = stream(seed, n, binary)
    whole, split = ScoreCell(BETS), ScoreCell(BETS)
    if started:
        for cell in (whole, split):
            cell.fold(*stream(seed + 1, 300, binary))
    one = whole.shard()
    one.add(z, pi, g)
    whole.absorb(one)
    rng = np.random.default_rng(seed)
    owner = rng.integers(0, parts, n)
    shards = []
    for part in rng.permutation(parts):
        shard = split.shard()
        mine = rng.permutation(np.flatnonzero(owner == part))
        shard.add(z[mine], pi[mine], g[mine])
        shards.append(EpochShard.restore(split.frozen(), BETS, json.loads(json.dumps(shard.state()))))
    merged = shards[0]
    for shard in shards[1:]:
        merged = shard.merge(merged)
    assert merged.counts == one.counts
    split.absorb(merged)
    if binary:
        assert split.state() == whole.state()
    assert split.counts == whole.counts
    assert numbers(split) == pytest.approx(numbers(whole), rel=1e-9, abs=1e-12)
    assert ScoreCell.restore(BETS, json.loads(json.dumps(split.state()))).frozen() == split.frozen()


@pytest.mark.parametrize("binary", [True, False])
def test_an_absorbed_epoch_is_the_folded_epoch(binary: bool) -> None:
    # After 8192 units an epoch is 512 units: folding it in order or absorbing it must agree, also afterwards.
    z, pi, g = stream(5, 8192 + 1024, binary)
    folded = ScoreCell(BETS)
    folded.fold(z[:8192], pi[:8192], g[:8192])
    end = folded.state()["moments"]["epoch_end"]
    folded.fold(z[8192:end], pi[8192:end], g[8192:end])
    sharded = ScoreCell.restore(BETS, folded.state())
    shard = sharded.shard()
    cut = slice(end, end + 512)
    shard.add(z[cut], pi[cut], g[cut])
    sharded.absorb(shard)
    folded.fold(z[cut], pi[cut], g[cut])
    guesses = ("m", "variance", "t", "mu0", "mu1")  # those of an epoch start: one cell is behind it already
    sums = {name: value for name, value in numbers(folded).items() if name not in guesses}
    assert {name: numbers(sharded)[name] for name in sums} == pytest.approx(sums, rel=1e-9, abs=1e-12)
    for name in BETS:
        assert sharded.log_e(name) == pytest.approx(folded.log_e(name), abs=1e-9)
        assert sharded.peak_log_e(name) <= folded.peak_log_e(name) + 1e-9
    sharded.fold(z[:600], pi[:600], g[:600])
    folded.fold(z[:600], pi[:600], g[:600])
    for name in BETS:
        assert sharded.log_e(name) == pytest.approx(folded.log_e(name), abs=1e-8)


def test_absorbed_epochs_keep_the_error() -> None:
    rng = np.random.default_rng(6)
    runs, hits = 150, 0
    for _ in range(runs):
        cell = ScoreCell({"up": superiority(), "down": harm()})
        for size in (1, 2, 5, 10, 30, 100, 300, 500, 500):
            shard = cell.shard()
            shard.add(rng.random(size) < 0.5, np.full(size, 0.5), (rng.random(size) < 0.1).astype(float))
            cell.absorb(shard)
        hits += max(cell.peak_log_e("up"), cell.peak_log_e("down")) >= math.log(40.0)
    assert hits / runs <= 0.05 + 2.33 * math.sqrt(0.05 * 0.95 / runs)


def test_strangers_are_refused_before_anything_changes() -> None:
    cell = ScoreCell(BETS)
    old = cell.shard()
    cell.fold(*stream(1, 50, True))
    before = cell.state()
    with pytest.raises(ValueError, match="next epoch"):
        cell.absorb(old)
    with pytest.raises(ValueError, match="next epoch"):
        cell.absorb(ScoreCell({"up": superiority()}).shard())
    with pytest.raises(ValueError, match="one epoch"):
        old.merge(cell.shard())
    with pytest.raises(ValueError, match="pi must"):
        cell.shard().add([True], [1.0], [0.0])
    with pytest.raises(ValueError, match="sums"):
        EpochShard.restore(cell.frozen(), BETS, {"tally": [], "sums": [0.0]})
    with pytest.raises(ValueError, match="covariates"):
        ScoreCell(BETS, covariates=1).shard()
    assert cell.state() == before
