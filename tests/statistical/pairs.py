"""T28: the challenger is scored in shadow beside the champion, and one user sends half of the traffic."""

from __future__ import annotations

import numpy as np

from benchmarks.stats_common import Measured
from gateway.evidence.definition import HARM, PROMOTE, MetricDefinition
from gateway.evidence.report import Report
from tests.statistical.rig import (
    ALPHA,
    ALPHA_ROLLBACK,
    HOUR,
    SECOND,
    Rng,
    Trapped,
    a_world,
    at_most,
    experiment,
    naive,
)

BRIER = MetricDefinition(
    name="brier", type="score", source="outcome", increase=False, loss="brier", window_us=round(HOUR * SECOND)
)
DEFINITION = experiment(BRIER, expected=0.05, paired=True)


def observed(rng: Rng, n: int = 400) -> tuple[Report, float]:
    """Equal models, each good at other users; whoever sends half of the traffic happens to like one of them.

    Returns the report and the naive z statistic of all paired differences.
    """
    differences = []
    heavy = int(rng.integers(0, 2))
    with a_world(DEFINITION) as world:
        for request in range(2 * n):
            whose = "heavy" if request % 2 else f"u{request}"
            liked = heavy if request % 2 else int(rng.integers(0, 2))
            # The label is 1. The champion's loss is .16, the challenger's .01 or .31: equal on the average.
            champion, challenger = 0.6, 1.0 - (0.31, 0.01)[liked] ** 0.5
            decision = world.assign(whose, False, pi=0.01)
            world.complete(decision, prediction=champion)
            world.shadow(decision, "b", challenger)
            world.outcome(decision, 1.0, metric="brier")
            world.clock.advance(1.0)
            differences.append((1 - champion) ** 2 - (1 - challenger) ** 2)
        world.settle()
        report = world.report
    d = np.array(differences)
    return report, float(d.mean() / (d.std() / np.sqrt(len(d))))


def t28(runs: int, seed: int) -> Trapped:
    rng = np.random.default_rng(seed)
    promoted, rolled_back, fooled, wrong = [], [], [], 0
    for _ in range(runs):
        report, z = observed(rng)
        promote, harm = report.test("brier", PROMOTE), report.test("brier", HARM)
        promoted.append(promote is not None and promote.log_e >= -np.log(ALPHA))
        rolled_back.append(harm is not None and harm.log_e >= -np.log(ALPHA_ROLLBACK))
        wrong += report.units != 401
        fooled.append(abs(z) > 1.96)
    return [
        at_most("T28", "false promotion at .05", promoted, ALPHA),
        at_most("T28", "false rollback at .01", rolled_back, ALPHA_ROLLBACK),
        Measured("T28", "runs with another number of pairs than of users", float(wrong), 0.0, runs),
        naive("T28", "z-test of all pairs, once", fooled, 0.5),
    ]
