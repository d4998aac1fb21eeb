"""T5 a challenger whose buyers only buy sooner, T6 one whose buyers are more, but later. Through spools and windows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from benchmarks.stats_common import Measured
from gateway.evidence.batch import Floats
from gateway.evidence.definition import HARM, PROMOTE
from gateway.evidence.report import Report
from tests.statistical.rig import (
    HOUR,
    SECOND,
    STRICT,
    Flags,
    Rng,
    Trapped,
    a_world,
    at_least,
    at_most,
    binary,
    decided,
    experiment,
    naive,
    report_of,
)
from tests.unit.evidence.world import World

WINDOW = 24.0  # hours
BOUGHT = binary(window_us=round(WINDOW * HOUR * SECOND))
ENTRY = 4.0  # everybody arrives within these hours


class Buyers(NamedTuple):
    """In the order in which they arrive; times in hours, inf for who never buys within the window."""

    z: Flags
    arrives: Floats
    buys: Floats


def buyers(rng: Rng, n: int, rates: tuple[float, float], means: tuple[float, float]) -> Buyers:
    """Rates within the window, and delays that are exponential as far as the window goes. Champion first."""
    z, arrives = rng.random(n) < 0.5, np.sort(rng.random(n)) * ENTRY
    mean = np.where(z, means[1], means[0])
    delay = -mean * np.log1p(-rng.random(n) * -np.expm1(-WINDOW / mean))
    return Buyers(z, arrives, np.where(rng.random(n) < np.where(z, rates[1], rates[0]), arrives + delay, np.inf))


class Looks:
    """What was seen at every full hour: the reports, and what counting as it comes says."""

    def __init__(self, some: Buyers) -> None:
        self._some = some
        self.reports: list[Report] = []
        self.decisions: list[str] = []
        self.naive: list[float] = []
        self.early_folds = 0

    def look(self, world: World, now: float) -> None:
        world.step()
        while world.engine.step():
            pass
        evidence = world.engine.evidence["exp"]
        self.reports.append(report_of(evidence, STRICT, world.report.units))
        self.decisions.append(decided(evidence).kind)
        some = self._some
        here = some.arrives <= now
        z, y = some.z[here], some.buys[here] <= now
        n1, n0 = max(int(z.sum()), 1), max(int((~z).sum()), 1)
        p = float(y.mean())
        error = (max(p * (1.0 - p), 1e-9) * (1.0 / n0 + 1.0 / n1)) ** 0.5
        self.naive.append((float(y[z].sum()) / n1 - float(y[~z].sum()) / n0) / error)
        self.early_folds += now < WINDOW and world.report.folded > 0


def watched(some: Buyers, hours: int) -> Looks:
    """The whole story through a world, looked at every hour."""
    looks = Looks(some)
    events = [(float(at), 0, unit) for unit, at in enumerate(some.arrives)]
    events += [(float(at), 1, unit) for unit, at in enumerate(some.buys) if np.isfinite(at)]
    events += [(float(hour), 2, 0) for hour in range(1, hours + 1)]
    with a_world(experiment(BOUGHT, expected=0.03)) as world:
        decisions: dict[int, int] = {}
        clock = 0.0
        for at, kind, unit in sorted(events):
            world.clock.advance(max(0.0, at - clock) * HOUR)
            clock = max(at, clock)
            if kind == 0:
                decisions[unit] = world.assign(unit, bool(some.z[unit]))
                world.complete(decisions[unit])
            elif kind == 1:
                world.outcome(decisions[unit], 1.0, metric="bought")
            else:
                world.pass_time(0.0)
                looks.look(world, at)
    return looks


def met(report: Report, name: str) -> bool:
    test = report.test("bought", name)
    return test is not None and test.met


def t5(runs: int, seed: int, n: int = 4000) -> Trapped:
    """Equal rates of 10 % within a day, after a mean of one hour and of six."""
    promoted, fooled, early, folded = [], [], 0, []
    for run in range(runs):
        looks = watched(buyers(np.random.default_rng(seed + run), n, (0.1, 0.1), (6.0, 1.0)), 30)
        promoted.append(any(met(report, PROMOTE) for report in looks.reports))
        fooled.append(max(looks.naive) > 1.96)
        early += looks.early_folds
        folded.append(sum(looks.reports[-1].matured["s1"]))
    return [
        at_most("T5", "promoted although only faster, at .01", promoted, STRICT.alpha),
        Measured("T5", "looks at which an open unit was counted", float(early), 0.0, 30 * runs),
        Measured("T5", "units counted when every window has closed / units", min(folded) / n, 1.0, runs, True),
        naive("T5", "conversions as they come, hourly", fooled, 0.9),
    ]


def t6(runs: int, seed: int, n: int = 12_000) -> Trapped:
    """The challenger sells 30 % more, after six hours instead of one."""
    harmed, early, promoted, fooled = [], [], [], []
    for run in range(runs):
        looks = watched(buyers(np.random.default_rng(seed + run), n, (0.1, 0.13), (1.0, 6.0)), 30)
        harmed.append("rollback" in looks.decisions or any(met(report, HARM) for report in looks.reports))
        early.append("promote" in looks.decisions[: int(WINDOW) - 1])
        promoted.append("promote" in looks.decisions)
        fooled.append(min(looks.naive) < -1.96)
    return [
        at_most("T6", "rolled back although better, at .01", harmed, STRICT.alpha),
        Measured("T6", "promoted before the first window closed", float(sum(early)), 0.0, runs),
        at_least("T6", "promoted after it", promoted, 0.9),
        naive("T6", "conversions as they come look worse", fooled, 0.9),
    ]
