"""The account of clients and store finds each thing that must not be."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.accounts import Allowed, examine
from benchmarks.callers import decision_of
from benchmarks.client_log import Answered, Key, Log
from benchmarks.node_config import ENDPOINT, EXPERIMENT, METRIC
from gateway.assignment.hashing import bucket, salt_key, unit_digest
from gateway.assignment.ranges import owner
from gateway.assignment.token import Signer, pack_names
from gateway.events import Assignment, Completion, Outcome, decision_id
from gateway.plan import HASH_SPACE, SigningKey, Slot
from gateway.store.base import PlanRow
from gateway.store.sqlite import SqliteStore

PEPPER = bytes(32)
SLOTS = (Slot(start=0, variant="logistic"), Slot(start=HASH_SPACE // 2, variant="boosted"))
USERS = 20
ID = decision_id(1, 0)


class World(NamedTuple):
    log: Log
    store: SqliteStore


def _assigned(user: int, decision: int, variant: str = "", at: int = 1000) -> Assignment:
    name = f"user-{user}".encode()
    point = bucket(salt_key("salt"), name)
    unit = unit_digest(PEPPER, name)
    drawn = variant or owner(SLOTS, point)
    return Assignment(decision, at, ENDPOINT, EXPERIMENT, "s", drawn, 0.5, point, unit, ("EWR",), 1)


def _completed(fact: Assignment, end: str = "answered") -> Completion:
    return Completion(fact.decision, fact.at + 1, fact.variant, end, 200, 10, 20)  # type: ignore[arg-type]


def _outcome(decision: int, id: str, value: float) -> Outcome:
    return Outcome(id, 2000, decision, ENDPOINT, EXPERIMENT, METRIC, value)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Each user has asked twice and posted once; everything is in the store."""
    log = Log()
    with closing(SqliteStore(tmp_path / "gateway.db")) as store:
        slots = json.dumps({ENDPOINT: [[slot.start, slot.variant] for slot in SLOTS]})
        with store.transaction():
            store.add_plan(PlanRow(1, 0, 0, "", "{}", slots))
            store.add_experiment(EXPERIMENT, ENDPOINT, "{}", 0)
            for number in range(1, 2 * USERS + 1):
                user = number % USERS
                fact = _assigned(user, ID + number)
                store.add_assignments(1, [fact])
                store.add_completions(1, [_completed(fact)])
                log.asked[user] += 1
                log.answered[fact.decision] = Answered(user, fact.variant.encode(), 0.0, 0.0)
            for number in range(1, USERS + 1):
                key = Key(ID + number, METRIC, f"id-{number}")
                store.add_outcomes(1, [_outcome(key.decision, key.id, 0.25)])
                log.tried[key] = {0.25}
                log.acknowledged[key] = 0.25
        yield World(log, store)


def _write(sql: str) -> Callable[[World], None]:
    def tamper(world: World) -> None:
        assert world.store.write(sql) > 0

    return tamper


def _never_asked(world: World) -> None:
    world.store.add_assignments(2, [_assigned(3, ID + 99)])


def _of_nobody(world: World) -> None:
    world.store.add_assignments(2, [_assigned(USERS + 5, ID + 99)])


def _of_another_user(world: World) -> None:
    first = min(world.log.answered)
    world.log.answered[first] = world.log.answered[first]._replace(user=7)


def _moved(world: World) -> None:
    """To where the plan does not put it."""
    fact = _assigned(3, ID + 99)
    other = "logistic" if fact.variant == "boosted" else "boosted"
    world.store.add_assignments(2, [_assigned(3, ID + 99, other)])
    world.log.asked[3] += 1


def _made_up(world: World) -> None:
    world.store.add_outcomes(2, [_outcome(ID + 1, "never sent", 0.5)])


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (_write(f"DELETE FROM assignment WHERE decision = {ID + 1}"), {"answered, and not in the store"}),
        (_write(f"DELETE FROM completion WHERE decision = {ID + 1}"), {"answered, and without completion"}),
        (_write("UPDATE completion SET ended = 'failed'"), {"answered, and stored as ended otherwise"}),
        (
            _write(f"UPDATE completion SET served = 'else' WHERE decision = {ID + 1}"),
            {"an answer that several variants gave"},
        ),
        (_never_asked, {"in the store, and never asked"}),
        (_of_nobody, {"in the store, and never asked"}),
        (_of_another_user, {"in the store as another user's"}),
        (_moved, {"assigned otherwise than the plan says", "units with two variants"}),
        (_write(f"DELETE FROM outcome WHERE decision = {ID + 1}"), {"acknowledged, and not in the store"}),
        (
            _write(f"UPDATE outcome SET value = 0.75 WHERE decision = {ID + 1}"),
            {"in the store, and never sent", "another value than the one acknowledged first"},
        ),
        (_made_up, {"in the store, and never sent"}),
        (_write(f"INSERT INTO cursor VALUES ('{EXPERIMENT}', 'brier', 7)"), {"brier: folded beyond the votes"}),
    ],
)
def test_what_must_not_be_is_found(world: World, tamper: Callable[[World], None], found: set[str]) -> None:
    assert examine(world.log, world.store, PEPPER, Allowed())["problems"] == {}
    tamper(world)
    assert examine(world.log, world.store, PEPPER, Allowed())["problems"].keys() == found


def test_what_was_said_to_be_missing_is_no_problem_and_nothing_beyond_it(world: World) -> None:
    world.store.write(f"DELETE FROM completion WHERE decision = {ID + 1}")
    assert examine(world.log, world.store, PEPPER, Allowed(uncompleted=1))["problems"] == {}
    world.store.write(f"DELETE FROM assignment WHERE decision <= {ID + 2}")
    assert examine(world.log, world.store, PEPPER, Allowed(dropped=2))["problems"] == {}
    problems = examine(world.log, world.store, PEPPER, Allowed(dropped=1, uncompleted=1))["problems"]
    assert problems["answered, and not in the store"][0] == 2


def test_a_late_outcome_is_kept_elsewhere(world: World) -> None:
    late = _outcome(ID + 1, "id-1", 0.25)
    world.store.write(f"DELETE FROM outcome WHERE decision = {late.decision}")
    world.store.add_late([late])
    account = examine(world.log, world.store, PEPPER, Allowed())
    assert (account["problems"], account["late"]) == ({}, 1)


def test_the_decision_of_a_token_is_read_without_its_key() -> None:
    signer = Signer([SigningKey(id=1, secret="00" * 32)])
    assert decision_of(signer.sign(pack_names("score", "exp"), ID + 17, 1, 2)) == ID + 17
