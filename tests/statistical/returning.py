"""T22: five thousand users come back every day while the challenger's share grows from 1 % over 10 % to 50 %.

Hashes, slots and plans are those of production. A user's first coin is fresh; at a later stage his hash is known to
lie in the champion's part, and what is left of his coin is worth a vote of its own (rule R6).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from benchmarks.stats_common import Measured
from gateway.assignment.hashing import bucket, salt_key
from gateway.assignment.ranges import origin, owner, resize, whole, width
from gateway.events import Assignment, decision_id
from gateway.evidence.batch import Batch
from gateway.evidence.cells import Evidence
from gateway.evidence.definition import HARM
from gateway.evidence.fold import fold_values
from gateway.evidence.known import Split, odds
from gateway.evidence.report import WATCH
from gateway.store.base import PlanRow
from tests.statistical.rig import (
    ALPHA,
    ALPHA_ROLLBACK,
    HOUR,
    SECOND,
    Rng,
    Trapped,
    a_world,
    at_least,
    at_most,
    binary,
    experiment,
    peak,
    reached,
)
from tests.unit.evidence.world import World

USERS, DAYS = 5000, 2  # days of each stage
SHARES = ("0.01", "0.10", "0.50")
BOUGHT = binary(window_us=round(12 * HOUR * SECOND))
DEFINITION = experiment(BOUGHT, expected=0.05)
ARMS = DEFINITION.arms


class Stage(NamedTuple):
    """A stage and its slots."""

    name: str
    split: Split


def stages() -> tuple[Stage, ...]:
    """The three stages of a release, grown as a release grows them; then the watch, with a holdback."""
    slots, found = whole("a"), []
    for share in SHARES:
        slots = resize(slots, "a", {"b": width(Decimal(share))}, {"b": origin("exp", "b")})
        found.append(Stage(f"at {share}", slots))
    held = resize(slots, "b", {"a": width(Decimal("0.05"))}, {"a": origin("exp", "a")})
    return (*found, Stage(WATCH, held))


STAGES = stages()


class Visit(NamedTuple):
    """One request of a user on one day, in the order of time."""

    user: int
    day: int
    at: float  # seconds
    hash: int
    stage: Stage
    variant: str
    bought: bool


def visits(rng: Rng, effect: float, through: int, *, all_days: bool = True) -> Iterator[Visit]:
    """Everybody comes once a day, at his hour or a little later; some buy often, some hardly ever.

    Without `all_days` only those that can be votes, the same ones: of the first day of each stage.
    """
    salt = salt_key("exp")
    names = rng.bytes(16)
    hashes = [bucket(salt, names + user.to_bytes(4, "big")) for user in range(USERS)]
    taste = rng.beta(0.4, 3.6, USERS)  # mean .1, correlated over the days with ICC .2
    hour = rng.random(USERS) * 22.0
    for day in range(DAYS * through):
        stage = STAGES[day // DAYS]
        times = (hour + rng.random(USERS)) * HOUR + day * 24 * HOUR
        luck = rng.random(USERS)
        if day % DAYS and not all_days:
            continue
        for user in np.argsort(times).tolist():
            variant = owner(stage.split, hashes[user])
            bought = luck[user] < min(taste[user] + effect * (variant == "b"), 1.0)
            yield Visit(user, day, float(times[user]), hashes[user], stage, variant, bool(bought))


class Votes(NamedTuple):
    stages: list[str]
    arms: list[int]
    odds: list[tuple[float, ...]]
    values: list[float]
    first: list[bool]

    def folded(self, *, only_first: bool = False) -> Evidence:
        keep = np.array(self.first) | (not only_first)
        n = int(keep.sum())
        batch = Batch(
            at=np.arange(n, dtype=np.int64),
            stages=np.array(self.stages)[keep],
            arms=np.array(self.arms)[keep],
            odds=np.array(self.odds)[keep],
            segments=np.full(n, "[]", dtype=np.object_),
        )
        evidence = Evidence(DEFINITION)
        fold_values(evidence, BOUGHT, batch, np.array(self.values)[keep])
        return evidence


Known = tuple[tuple[str, str], ...]  # stages in which a user was seen, with the variants that he got


@cache
def _odds(known: Known, stage: str) -> tuple[float, ...]:
    splits = {one.name: one.split for one in STAGES}
    return odds(tuple((splits[name], variant) for name, variant in known), splits[stage], ARMS)


def voted(rng: Rng, effect: float, through: int = len(SHARES)) -> Votes:
    """The votes by the rule itself: one for each stage, worth what is left of the coin."""
    seen: dict[int, Known] = {}
    votes = Votes([], [], [], [], [])
    for visit in visits(rng, effect, through, all_days=False):
        known, stage = seen.get(visit.user, ()), visit.stage.name
        if any(earlier == stage for earlier, _ in known):
            continue
        chances = _odds(known, stage)
        arm = ARMS.index(visit.variant)
        seen[visit.user] = (*known, (stage, visit.variant))
        if chances[arm] < 1.0:
            votes.stages.append(stage)
            votes.arms.append(arm)
            votes.odds.append(chances)
            votes.values.append(float(visit.bought))
            votes.first.append(not known)
    return votes


def t22(runs: int, seed: int) -> Trapped:
    """Five points more are found, although everybody was there before; and nothing is found where nothing is."""
    rng = np.random.default_rng(seed)
    found, late, false, rolled_back = [], [], [], []
    for _ in range(runs):
        votes = voted(rng, 0.05)
        found.append(reached(peak(votes.folded()), ALPHA))
        late.append(reached(peak(votes.folded(only_first=True)), ALPHA))
        same = voted(rng, 0.0).folded()
        false.append(reached(peak(same), ALPHA))
        rolled_back.append(reached(peak(same, HARM), ALPHA_ROLLBACK))
    return [
        at_least("T22", "five points found at .05", found, 0.98),
        at_most("T22", "false promotion of equals at .05", false, ALPHA),
        at_most("T22", "false rollback of equals at .01", rolled_back, ALPHA_ROLLBACK),
        Measured("T22", "naive: found by first exposures only", sum(late) / runs, 0.5, runs),
    ]


def t22_through_spools(runs: int, seed: int) -> Trapped:
    """Real slots in the plans, facts through spools and join: the same votes and the same evidence to the bit."""
    differ = 0
    for run in range(runs):
        votes = voted(np.random.default_rng(seed + run), 0.05, len(STAGES))
        with a_world(DEFINITION) as world:
            with world.store.transaction():
                for number, stage in enumerate(STAGES, 1):
                    row = json.dumps({"rank": [(slot.start, slot.variant) for slot in stage.split]})
                    world.store.add_plan(PlanRow(number, 0, 0, "", "{}", row))
            _send(world, np.random.default_rng(seed + run), 0.05)
            rows = world.store.rows("SELECT stage, arm, odds FROM vote ORDER BY ordinal")
            cast = [(stage, arm, tuple(json.loads(text))) for stage, arm, text in rows]
            differ += cast != list(zip(votes.stages, votes.arms, votes.odds, strict=True))
            seen, other = world.engine.evidence["exp"], votes.folded()
            differ += seen.cell(1, BOUGHT).state() != other.cell(1, BOUGHT).state()
            differ += seen.find("watch", "1", BOUGHT.name).state() != other.find("watch", "1", BOUGHT.name).state()
            differ += seen.find("watch", "1", BOUGHT.name).detector.n == 0 or world.report.sample_ratio_alarm
    return [Measured("T22", "runs with other votes or other evidence than by the rule", float(differ), 0.0, runs)]


def _send(world: World, rng: Rng, effect: float) -> None:
    clock = 0.0
    writer = world.shards[0]
    for number, visit in enumerate(visits(rng, effect, len(STAGES)), 1):
        if int(visit.at // HOUR) > int(clock // HOUR):
            world.step(0.0)
        world.clock.advance(max(0.0, visit.at - clock))
        clock = max(clock, visit.at)
        digest = blake2b(b"pepper %d" % visit.user, digest_size=16).digest()
        revision = 1 + visit.day // DAYS
        fact = Assignment(
            decision_id(1, number), writer.requests.now(), "rank", "exp", visit.stage.name, visit.variant,
            0.5, visit.hash, digest, (), revision, 0, (),  # its pi is not read: the plan says more
        )  # fmt: skip
        writer.requests.append(fact)
        world.complete(fact.decision)
        if visit.bought:
            world.outcome(fact.decision, 1.0, metric="bought")
    world.settle()
    while world.engine.step():
        pass
