"""All traps of the specification, each with the number of runs for `make test` and for `make prove`.

T27 is not here: the gateway has no watchdog on the champion's own level, so nothing could fire.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from benchmarks.stats_common import Measured
from tests.statistical.clusters import t2, t2_ratio, t2_through_spools
from tests.statistical.delay import t5, t6
from tests.statistical.intake import t13
from tests.statistical.margins import t20, t20_timeouts, t21
from tests.statistical.missing import LABEL, t7, t7_failures, t7_successes, t8
from tests.statistical.pairs import t28
from tests.statistical.peeking import t1, t3, t4, t25
from tests.statistical.posts import t9, t10, t24
from tests.statistical.returning import t22, t22_through_spools
from tests.statistical.rivals import t18, t19, t19_best
from tests.statistical.segments import t15, t15_harmed, t16, t17, t17_turn
from tests.statistical.tails import TAILS, t11, t12, t14, t23
from tests.statistical.watch import t26, t26_quiet

SEED = 20


class Trap(NamedTuple):
    run: Callable[[int, int], list[Measured]]  # runs and seed
    short: int  # runs in `make test`; 0 for a cell that only `make prove` visits
    full: int = 2000
    known: str = ""  # why it is known to fail


TRAPS: dict[str, Trap] = {
    "T1 peeking/.01": Trap(partial(t1, rate=0.01), 250),
    "T1 peeking/.1": Trap(partial(t1, rate=0.1), 250),
    "T1 peeking/.5": Trap(partial(t1, rate=0.5), 250),
    "T2 correlated requests/1000 x 10": Trap(partial(t2, n=1000, requests=10), 300),
    "T2 correlated requests/500 x 50": Trap(partial(t2, n=500, requests=50), 200),
    "T2 correlated requests/spools": Trap(t2_through_spools, 3, 50),
    "T2 correlated requests/ratio": Trap(partial(t2_ratio, more=1.0, n=5000), 120),
    "T2 correlated requests/ratio, more of them": Trap(
        partial(t2_ratio, more=1.5, n=100_000),
        0,
        400,
        "the error of the champion's ratio counts as an effect of whatever makes users come more often; it is of the "
        "order of the noise however often the ratio is taken anew, so the denominator should be a signal",
    ),
    "T3 Simpson/0": Trap(partial(t3, effect=0.0), 200),
    "T3 Simpson/-.02": Trap(partial(t3, effect=-0.02), 200),
    "T4 start of a ramp": Trap(t4, 300),
    "T5 faster conversions": Trap(t5, 4, 200),
    "T6 slower conversions": Trap(t6, 2, 50),
    "T7 lost outcomes/at random": Trap(t7, 10, 200),
    "T7 lost outcomes/failures": Trap(partial(t7_failures, rate=0.5, n=80_000), 12, 400),
    "T7 lost outcomes/rare failures": Trap(partial(t7_failures, rate=0.95, n=80_000, share=0.16), 10, 400),
    "T7 lost outcomes/successes, bounds": Trap(t7_successes, 10, 400),
    "T7 lost outcomes/successes, exclude": Trap(
        partial(t7_successes, metric=LABEL),
        0,
        100,
        "the worst fill gives the champion's missing outcomes the worst value, too; `missing: bounds` the best",
    ),
    "T8 broken coin": Trap(t8, 40, 400),
    "T9 duplicates": Trap(t9, 3, 50),
    "T10 conflicts": Trap(t10, 3, 50),
    **{
        f"T11 heavy tails/{tail}, {scale}, {split}": Trap(
            partial(t11, tail=tail, scale=scale, split=split), 120 if (scale == "rank") == (split == 0.02) else 0
        )
        for tail in TAILS
        for scale in ("rank", "winsorised")
        for split in (0.02, 0.5)
    },
    "T12 tiny counts": Trap(t12, 1, 20),
    "T13 values that are none": Trap(t13, 2, 50),
    "T14 ties": Trap(t14, 40, 1000),
    "T15 segments/equal": Trap(partial(t15, n=10_000), 60),
    "T15 segments/equal, long": Trap(partial(t15, n=40_000), 0, 400),
    "T15 segments/one harmed": Trap(t15_harmed, 25, 400),
    "T16 tiny segments": Trap(t16, 15, 400),
    "T17 novelty": Trap(t17, 40, 1000),
    "T17 novelty/turned": Trap(t17_turn, 60, 1000),
    "T18 bandit under drift": Trap(t18, 100),
    "T19 six arms/equal": Trap(t19, 250),
    "T19 six arms/best": Trap(t19_best, 30, 400),
    "T20 latency/slower": Trap(t20, 15, 400),
    "T20 latency/time-outs": Trap(t20_timeouts, 30, 400),
    "T21 non-inferiority": Trap(t21, 60, 1000),
    "T22 returning users": Trap(t22, 15, 400),
    "T22 returning users/spools": Trap(t22_through_spools, 1, 20),
    "T23 large offset": Trap(t23, 1, 1),
    "T24 wrong clocks, restarts": Trap(t24, 2, 50),
    "T25 adaptive peeker": Trap(t25, 250),
    "T26 after the promotion/holdback 5 %": Trap(partial(t26, holdback=0.05), 20, 400),
    "T26 after the promotion/holdback 2 %": Trap(partial(t26, holdback=0.02), 10, 400),
    "T26 after the promotion/seasons": Trap(t26_quiet, 40, 1000),
    "T28 one user in half of the pairs": Trap(t28, 12, 400),
}
