"""T26: the error rate triples after a promotion, in a world of seasons; a holdback of the old champion is the measure.

T27 has no test: the gateway has no watchdog on the champion's absolute level (see the report of the traps).
"""

from __future__ import annotations

import math

import numpy as np

from benchmarks.stats_common import Measured
from gateway.evidence.batch import Floats
from gateway.evidence.cells import Evidence
from gateway.evidence.definition import HARM, MetricDefinition
from gateway.evidence.fold import fold_values
from gateway.evidence.report import WATCH
from tests.statistical.rig import (
    THRESHOLDS,
    Trapped,
    at_most,
    binary,
    blocks,
    drawn,
    experiment,
    happens,
    naive,
    report_of,
)

FAILED = binary("failed", increase=False)
ERRORS = MetricDefinition(name="errors", type="binary", source="gateway", increase=False, margin=0.005)
DEFINITION = experiment(FAILED, ERRORS)
CYCLE, CYCLES = 1000, 30
BEFORE, AFTER = 0.01, 0.03


def season(n: int) -> Floats:
    """A day of 1,000 units, half as bad again at noon, half as bad at night."""
    return 1.0 + 0.5 * np.sin(2.0 * np.pi * np.arange(n) / CYCLE)


def alarm(evidence: Evidence, metric: str) -> bool:
    test = report_of(evidence).test(metric, HARM, WATCH)
    return test is not None and test.met


def quickest(holdback: float, least: float) -> float:
    """log c/KL: units after which an average run length of c could have been given up, knowing both rates."""
    pi = 1.0 - holdback
    m = pi * AFTER + holdback * (BEFORE + least)
    information = 0.0
    for weight, rate in ((pi, AFTER), (holdback, BEFORE + least)):
        information += weight * (rate * math.log(rate / m) + (1 - rate) * math.log((1 - rate) / (1 - m)))
    return math.log(THRESHOLDS.run_length) / information


def t26(runs: int, seed: int, holdback: float) -> Trapped:
    """Delay until the alarm, of the objective (any harm) and of a guardrail (harm beyond its margin)."""
    rng = np.random.default_rng(seed)
    # The guardrail's margin lies between the rates: what it must see is the distance to it.
    limits = {"failed": quickest(holdback, 0.0), "errors": quickest(holdback, ERRORS.margin or 0.0)}
    delays: dict[str, list[float]] = {name: [] for name in limits}
    for _ in range(runs):
        n = 10_000 + round(3 * max(limits.values()))
        z, batch = drawn(rng, 1.0 - holdback, n, stage=WATCH)
        broken = z & (np.arange(n) >= 10_000)
        y = happens(rng, np.where(broken, AFTER, BEFORE) * season(n))
        evidence = Evidence(DEFINITION)
        waiting = {metric.name: metric for metric in (FAILED, ERRORS)}
        for some, told, end in blocks(batch, y, 1000):
            for name, metric in list(waiting.items()):
                fold_values(evidence, metric, some, told)
                if alarm(evidence, name):
                    delays[name].append(end - 10_000.0)
                    del waiting[name]
            if not waiting:
                break
        for name in waiting:
            delays[name].append(n - 10_000.0)
    return [
        Measured(
            "T26", f"mean delay in units / (log c/KL), {name}", float(np.mean(delays[name])) / limits[name], 1.2, runs
        )
        for name in limits
    ]


def t26_quiet(runs: int, seed: int) -> Trapped:
    """Thirty days of a season and no change."""
    rng, n = np.random.default_rng(seed), CYCLE * CYCLES
    false: dict[str, list[bool]] = {"failed": [], "errors": []}
    fooled = []
    for _ in range(runs):
        z, batch = drawn(rng, 0.95, n, stage=WATCH)
        y = happens(rng, BEFORE * season(n))
        evidence = Evidence(DEFINITION)
        for metric in (FAILED, ERRORS):
            fold_values(evidence, metric, batch, y)
        for name, alarms in false.items():
            alarms.append(alarm(evidence, name))
        fooled.append(_peaks(y[z]))
    return [
        *(at_most("T26", f"an alarm in thirty seasonal days, c = 1e6, {name}", false[name], 0.05) for name in false),
        naive("T26", "half a day's rate three standard errors above the mean", fooled, 0.3),
    ]


def _peaks(y: Floats, window: int = CYCLE // 2) -> bool:
    """A control chart of the level, told the true mean."""
    rates = y[: len(y) // window * window].reshape(-1, window).mean(axis=1)
    return bool((rates > BEFORE + 3.0 * math.sqrt(BEFORE * (1.0 - BEFORE) / window)).any())
