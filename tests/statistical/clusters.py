"""T2: requests of one user are alike. A user is one unit with one value, when its window closes."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np

from benchmarks.stats_common import Measured
from gateway.evidence.batch import Floats, Ints
from gateway.evidence.cells import Evidence
from gateway.evidence.definition import HARM, Definition, MetricDefinition
from tests.statistical.rig import (
    ALPHA,
    ALPHA_ROLLBACK,
    HOUR,
    SECOND,
    Flags,
    Rng,
    Trapped,
    a_world,
    at_most,
    binary,
    crowd,
    experiment,
    folded,
    happens,
    naive,
    peak,
    peeked,
    reached,
    z_path,
)

ICC, RATE = 0.2, 0.1


class Users(NamedTuple):
    """Users in the order of their first request, and all requests in the order of theirs."""

    z: Flags
    clicks: Floats  # per user
    of: Ints  # per request: its user
    clicked: Floats  # per request


def users(rng: Rng, n: int, requests: int) -> Users:
    """Everybody comes once, and makes his requests within about a twentieth of the whole time."""
    a = RATE * (1.0 / ICC - 1.0)
    rate = np.repeat(rng.beta(a, (1.0 - RATE) * a / RATE, n), requests)
    first = np.sort(rng.random(n))
    times = np.repeat(first, requests) + rng.exponential(0.05, n * requests)
    times[::requests] = first
    order = np.argsort(times, kind="stable")
    of, clicked = np.repeat(np.arange(n), requests)[order], happens(rng, rate)[order]
    clicks = np.zeros(n)
    np.add.at(clicks, of, clicked)
    return Users(rng.random(n) < 0.5, clicks, of, clicked)


def per_user(requests: int) -> MetricDefinition:
    return MetricDefinition(
        name="clicks",
        type="count",
        source="outcome",
        increase=True,
        high=float(requests),
        aggregate="sum",
        missing="zero",
        window_us=round(24 * HOUR * SECOND),
    )


def by_user(define: Definition, some: Users) -> Evidence:
    return folded(define, crowd(some.z.astype(np.int64), np.full((len(some.z), 2), 0.5)), some.clicks)


def width(evidence: Evidence) -> float:
    """Of the asymptotic interval, tuned to the time that it is read at."""
    cell = evidence.find("cell", "1", evidence.definition.objective, "")
    interval = cell.interval(0.05, v_opt=cell.state()["moments"]["v"], method="asymptotic")
    return float(interval.upper - interval.lower)


def t2(runs: int, seed: int, n: int, requests: int) -> Trapped:
    """Equal arms; n sticky users with so many requests each."""
    rng = np.random.default_rng(seed)
    define, single = experiment(per_user(requests), expected=0.03 * requests), experiment(binary("clicks"))
    promoted, rolled_back, fooled, at_the_end, on_requests, wider = [], [], [], [], [], []
    for run in range(runs):
        some = users(rng, n, requests)
        evidence = by_user(define, some)
        promoted.append(reached(peak(evidence), ALPHA))
        rolled_back.append(reached(peak(evidence, HARM), ALPHA_ROLLBACK))
        z = some.z[some.of]
        fooled.append(peeked(z, some.clicked))
        at_the_end.append(abs(float(z_path(z, some.clicked)[-1])) > 1.96)
        if run % 4 == 0:
            each = folded(single, crowd(z.astype(np.int64), np.full((len(z), 2), 0.5)), some.clicked)
            on_requests.append(reached(max(peak(each), peak(each, HARM)), 0.025))
            wider.append(width(evidence) / width(each))
    least = {10: 1.6, 50: 3.2}[requests]
    return [
        at_most("T2", "false promotion at .05 with users as units", promoted, ALPHA),
        at_most("T2", "false rollback at .01", rolled_back, ALPHA_ROLLBACK),
        Measured("T2", "width of the interval over that of requests", float(np.mean(wider)), least, len(wider), True),
        naive("T2", "z-test on requests at every request", fooled, 0.5),
        naive("T2", "z-test on requests once, at the end", at_the_end, 0.1),
        naive("T2", "valid sequence on requests, two-sided .05", on_requests),
    ]


def t2_through_spools(runs: int, seed: int) -> Trapped:
    """The same users through spools, join and closing: as many votes as users, and the same evidence to the bit."""
    wrong = 0
    for run in range(runs):
        some, define = users(np.random.default_rng(seed + run), 300, 10), experiment(per_user(10), expected=0.3)
        with a_world(define, shards=2) as world:
            for request, (user, clicked) in enumerate(zip(some.of.tolist(), some.clicked.tolist(), strict=True)):
                shard = request % 2
                decision = world.assign(user, bool(some.z[user]), shard=shard)
                world.complete(decision)
                if clicked:
                    world.outcome(decision, 1.0, metric="clicks", shard=1 - shard)
                world.clock.advance(1.0)
            world.step(25 * HOUR)
            world.settle()
            report = world.report
            seen = world.engine.evidence["exp"].cell(1, define.metrics[0])
        wrong += report.units != 300 or report.assigned != (300 - some.z.sum(), some.z.sum())
        wrong += seen.state() != by_user(define, some).cell(1, define.metrics[0]).state()
    return [Measured("T2", "through spools: runs with another n or other evidence", float(wrong), 0.0, runs)]


def per_request(cap: float = 50.0) -> Definition:
    """Clicks per request with users as units; both are counted over the window."""
    counts = (msgspec.structs.replace(per_user(1), name=name, high=cap) for name in ("clicks", "requests"))
    rate = MetricDefinition(
        name="rate", type="ratio", source="outcome", increase=True, missing="zero",
        numerator="clicks", denominator="requests",
    )  # fmt: skip
    return experiment(rate, *counts, expected=0.03)


def t2_ratio(runs: int, seed: int, more: float, n: int) -> Trapped:
    """Users with any number of requests, the challenger's with so many times as many; each click as likely."""
    rng, define = np.random.default_rng(seed), per_request()
    promoted, rolled_back, fooled = [], [], []
    a = RATE * (1.0 / ICC - 1.0)
    for _ in range(runs):
        z = rng.random(n) < 0.5
        requests = np.minimum(rng.geometric(1.0 / np.where(z, 6.0 * more, 6.0)), 50)
        clicked = rng.binomial(requests, rng.beta(a, (1.0 - RATE) * a / RATE, n)).astype(np.float64)
        batch = crowd(z.astype(np.int64), np.full((n, 2), 0.5))
        evidence = folded(define, batch, np.stack([clicked, requests.astype(np.float64)], axis=1))
        promoted.append(reached(peak(evidence), ALPHA))
        rolled_back.append(reached(peak(evidence, HARM), ALPHA_ROLLBACK))
        of = np.repeat(np.arange(n), requests)
        fooled.append(peeked(z[of], happens(rng, (clicked / requests)[of])))
    return [
        at_most("T2", f"false promotion of a ratio at .05, requests x {more:g}", promoted, ALPHA),
        at_most("T2", "false rollback at .01", rolled_back, ALPHA_ROLLBACK),
        naive("T2", "z-test on requests at every request", fooled, 0.3),
    ]
