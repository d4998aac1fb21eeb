"""G13 throughput and size, G14 merging and replay."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
import numpy as np

from benchmarks.stats_common import Measured, Rng, coins
from gateway.stats import (
    AnyBet,
    SampleRatio,
    ScoreCell,
    futility,
    harm,
    non_inferiority,
    relative_non_inferiority,
    superiority,
)

BETS: dict[str, AnyBet] = {
    "up": superiority(0.02),
    "harm": harm(),
    "ni": non_inferiority(0.05),
    "futile": futility(0.02),
}


def _seconds(work: Callable[[], object], repeat: int) -> float:
    """Best of five means: the machine's noise only ever adds."""
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        for _ in range(repeat):
            work()
        best = min(best, (time.perf_counter() - begin) / repeat)
    return best


def _each(cell: ScoreCell, units: list[tuple[bool, float, float]]) -> None:
    for z, pi, g in units:
        cell.add(z, pi, g)
    cell.log_e("harm")


def g13(runs: int, rng: Rng) -> list[Measured]:
    """One core, Python API. One bet (K = 6 stakes) and the four of a full cell."""
    z, pi = coins(rng, 0.5, 1000)
    g = (rng.random(1000) < 0.1).astype(np.float64)
    cells = {"one bet": ScoreCell({"harm": harm()}), "four bets": ScoreCell(BETS)}
    units = list(zip(z.tolist(), pi.tolist(), g.tolist(), strict=True))
    rates, single, alone = {}, {}, {}
    for name, cell in cells.items():
        rates[name] = 1000.0 / _seconds(lambda cell=cell: cell.fold(z, pi, g), 50)  # type: ignore[misc]
        single[name] = 1000.0 / _seconds(lambda cell=cell: _each(cell, units), 20)  # type: ignore[misc]
        alone[name] = 1.0 / _seconds(lambda cell=cell: cell.fold(z[:1], pi[:1], g[:1]), 300)  # type: ignore[misc]
    full = cells["four bets"]
    evaluation = _seconds(lambda: [full.log_e(name) for name in BETS], 300)
    interval = _seconds(lambda: full.interval(0.05, v_opt=60.0), 300)
    state = full.state()
    numbers = len(state["moments"]) - 2 + 20 + sum(len(bet["log_wealth"]) + 1 for bet in state["bets"].values())
    packed = len(msgspec.msgpack.encode(state))
    many = [ScoreCell(BETS) for _ in range(20 * 10 * 5)]
    for cell in many:
        cell.fold(z[:5], pi[:5], g[:5])

    def tick() -> None:
        for cell in many:
            for name in BETS:
                cell.log_e(name)

    timings = {"log E of four bets": evaluation, "exact interval": interval}
    return [
        Measured(
            "G13",
            "outcomes a second into a cell with four bets, 1,000 a call",
            rates["four bets"],
            1e6,
            5,
            at_least=True,
            detail=rates,
        ),
        Measured(
            "G13",
            "the same, one a call",
            single["four bets"],
            1e5,
            5,
            at_least=True,
            detail={"add": single, "fold of one unit": alone},
        ),
        Measured(
            "G13", "bytes of numbers in such a cell", 8.0 * numbers, 1024.0, 1, detail={"msgpack with names": packed}
        ),
        Measured(
            "G13",
            "seconds to evaluate it: the slower of four log E and the exact interval",
            max(evaluation, interval),
            1e-4,
            5,
            detail=timings,
        ),
        Measured("G13", "seconds to evaluate 1,000 cells", _seconds(tick, 1), 0.1, 5),
    ]


def g14(runs: int, rng: Rng) -> list[Measured]:
    """Random sharding, order and merging of an epoch; replay of a log in other chunks."""
    bets = {**BETS, "relative": relative_non_inferiority(0.1, bigger_is_better=False, floor=0.01)}
    some, different, replayed, worst = min(max(runs // 4, 20), 500), 0, 0, 0.0
    for run in range(some):
        z, pi = coins(rng, rng.choice([0.05, 0.5], 400), 400)
        g = rng.random(400) if run % 2 else (rng.random(400) < 0.1).astype(np.float64)
        owner, cells = rng.integers(0, 5, 400), []
        for parts in (np.zeros(400, dtype=np.int64), owner):
            cell = ScoreCell(bets)
            cell.fold(z[:50], pi[:50], g[:50])
            merged = cell.shard()
            for part in rng.permutation(parts.max() + 1):
                mine, shard = rng.permutation(np.flatnonzero(parts == part)), cell.shard()
                shard.add(z[mine], pi[mine], g[mine])
                merged = shard.merge(merged)
            cell.absorb(merged)
            cells.append(cell)
        whole, split = cells
        different += whole.counts != split.counts or (run % 2 == 0 and whole.state() != split.state())
        for name in bets:
            a, b = whole.log_e(name), split.log_e(name)
            worst = max(worst, abs(a - b) / max(1.0, abs(a)))
        again, ratio, parts_of = ScoreCell(bets), SampleRatio(), SampleRatio()
        once = ScoreCell(bets)
        once.fold(z, pi, g)
        ratio.add(pi, z)
        for mine in np.array_split(np.arange(400), 1 + run % 7):
            again.fold(z[mine], pi[mine], g[mine])
            part = SampleRatio()
            part.add(pi[mine], z[mine])
            parts_of = part.merge(parts_of)
        replayed += once.state() != again.state() or ratio != parts_of
    return [
        Measured(
            "G14", "shardings with other integers, or with other bits of yes/no outcomes", float(different), 0.0, some
        ),
        Measured("G14", "worst relative difference of log E between shardings", worst, 1e-9, some),
        Measured("G14", "replays in other chunks with other bits", float(replayed), 0.0, some),
    ]
