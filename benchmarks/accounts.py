"""What clients know, held against what the store has: nothing lost, nothing twice, nothing made up, nobody moved."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from contextlib import closing
from typing import Any, NamedTuple

import msgspec

from benchmarks.callers import USERS
from benchmarks.client_log import Key, Log
from benchmarks.node_config import ENDPOINT, EXPERIMENT
from benchmarks.nodes import Node
from gateway.assignment.hashing import unit_digest
from gateway.assignment.ranges import owner
from gateway.audit.replay import replay
from gateway.audit.verify import verify
from gateway.events import Fact, Outcome
from gateway.plan import Slot
from gateway.store.open import open_store
from gateway.store.releases import ReleaseTables
from gateway.store.sqlite import SqliteStore
from gateway.store.tables import Tables

SHOWN = 5  # of each kind of problem
_HASHES = 1 << 64


class _Request(NamedTuple):
    decision: int
    unit: bytes
    bucket: int
    variant: str
    revision: int
    served: str | None  # None: no completion
    ended: str | None


class Allowed(NamedTuple):
    """What may be missing, because somebody has said so."""

    uncompleted: int = 0
    """A worker hands an answer to the kernel and then appends its completion, one request after the other: whoever is
    killed in between leaves one assignment without completion, which counts as failed."""
    dropped: int = 0
    """Facts of requests that a spool did not take, and that were counted: the request is answered all the same."""
    moved: bool = False
    """A decision has changed the split."""
    several_nodes: bool = False
    """Of two values of one outcome, posted to two nodes, the one stays that reaches the store first."""


_NOTHING = Allowed()


class Problems(dict[str, list[Any]]):
    """What must not be, by kind; empty if all is well."""

    def note(self, kind: str, cases: Iterable[Any]) -> None:
        found = list(cases)
        if found:
            self[kind] = [len(found), *found[:SHOWN]]


def audit(log: Log, node: Node, allowed: Allowed = _NOTHING) -> dict[str, Any]:
    """The account of one stopped node, or of all that share its store; `problems` is empty if every statement of this
    module's head holds, the store agrees with itself, and its log gives the same evidence when it is folded again."""
    with closing(open_store(node.store_url, read_only=True)) as store:
        result = examine(log, store, node.pepper, allowed)
        with store.transaction():
            found = {"verify finds": [str(one) for one in verify(store)]}
            made_again = list(replay(store))
    found["replay finds"] = [str(one) for replayed in made_again for one in replayed.findings]
    result["problems"] |= {what: [len(cases), *cases[:SHOWN]] for what, cases in found.items() if cases}
    result["replayed"] = {"votes": sum(one.votes for one in made_again), "steps": max(one.steps for one in made_again)}
    if not isinstance(store, SqliteStore):
        return result
    with closing(sqlite3.connect(f"file:{node.database}?mode=ro", uri=True)) as db:
        (sound,) = db.execute("PRAGMA integrity_check").fetchone()
    if sound != "ok":
        result["problems"]["the file is damaged"] = [sound]
    return result


class Known(NamedTuple):
    """How many facts there must be, at least."""

    requests: int
    outcomes: int

    @classmethod
    def of(cls, log: Log) -> Known:
        return cls(len(log.answered), len(log.acknowledged))


def shipped(known: Known, node: Node) -> bool:
    """Whether the store of a running node has as many facts."""
    with closing(open_store(node.store_url, read_only=True)) as store:
        stored = Known(*(_number(store, f"SELECT count(*) FROM {table}") for table in ("assignment", "outcome")))
    return all(there >= wanted for there, wanted in zip(stored, known, strict=True))


def examine(log: Log, store: Tables, pepper: bytes, allowed: Allowed) -> dict[str, Any]:
    """The account of what several nodes have written, or one."""
    problems = Problems()
    requests = _requests(store)
    unassigned = _assignments(log, requests, pepper, allowed, problems)
    uncompleted = _completions(log, requests, allowed, problems)
    _splits(store, requests.values(), allowed, problems)
    otherwise = _outcomes(log, store, allowed, problems)
    _votes(store, problems)
    if isinstance(store, ReleaseTables) and (broken := store.broken_link()) is not None:
        problems["the ledger's chain is broken"] = [broken]
    stored = {"requests": len(requests), "outcomes": _number(store, "SELECT count(*) FROM outcome")}
    late = _number(store, "SELECT count(*) FROM late_fact")
    told = {
        "stored": stored,
        "late": late,
        "unassigned": unassigned,
        "uncompleted": uncompleted,
        "reordered": otherwise,
    }
    return {**log.summary, **told, "problems": dict(problems)}


def _requests(store: Tables) -> dict[int, _Request]:
    rows = store.rows(
        "SELECT r.decision, r.unit, r.bucket, r.variant, r.revision, c.served, c.ended FROM request r"
        " LEFT JOIN completion c ON c.decision = r.decision WHERE r.endpoint = ? AND r.experiment = ?",
        (ENDPOINT, EXPERIMENT),
    )
    found = {row[0]: _Request(row[0], bytes(row[1]), row[2] % _HASHES, *row[3:]) for row in rows}
    assert len(found) == len(rows), "a decision, or its completion, is there twice"
    return found


def _assignments(log: Log, requests: dict[int, _Request], pepper: bytes, allowed: Allowed, problems: Problems) -> int:
    """Every answer has its assignment, of that user, and there is none that nobody asked for; returns how many lack."""
    users = {unit_digest(pepper, f"user-{user}".encode()): user for user in range(USERS)}
    missing = log.answered.keys() - requests.keys()
    if len(missing) > allowed.dropped:
        problems.note("answered, and not in the store", missing)
    kept: Counter[int | None] = Counter(users.get(one.unit) for one in requests.values())
    problems.note("in the store, and never asked", (user for user in kept if kept[user] > log.asked.get(user or 0, 0)))
    problems.note(
        "in the store as another user's",
        (
            decision
            for decision, answer in log.answered.items()
            if decision in requests and users.get(requests[decision].unit) != answer.user
        ),
    )
    return len(missing)


def _completions(log: Log, requests: dict[int, _Request], allowed: Allowed, problems: Problems) -> int:
    """Every answer has its completion, which names the variant that gave it; returns how many have none."""
    both = [(requests[decision], answer) for decision, answer in log.answered.items() if decision in requests]
    uncompleted = [one.decision for one, _ in both if one.ended is None]
    if len(uncompleted) > allowed.uncompleted + allowed.dropped:
        problems.note("answered, and without completion", uncompleted)
    otherwise = [one.decision for one, _ in both if one.ended not in (None, "answered")]
    problems.note("answered, and stored as ended otherwise", otherwise)
    models: dict[bytes, set[str | None]] = defaultdict(set)
    for one, answer in both:
        if one.ended == "answered":
            models[answer.prediction].add(one.served)
    problems.note("an answer that several variants gave", (names for names in models.values() if len(names) > 1))
    return len(uncompleted)


def _splits(store: Tables, requests: Collection[_Request], allowed: Allowed, problems: Problems) -> None:
    """Every assignment follows from the plan that it names; unless that was decided, no unit has had two variants."""
    slots = {
        revision: tuple(Slot(start=start, variant=variant) for start, variant in msgspec.json.decode(text)[ENDPOINT])
        for revision, text in store.rows("SELECT revision, slots FROM plan")
    }
    drawn: dict[bytes, set[str]] = defaultdict(set)
    wrong = []
    for one in requests:
        drawn[one.unit].add(one.variant)
        if one.revision not in slots or owner(slots[one.revision], one.bucket) != one.variant:
            wrong.append(one.decision)
    problems.note("assigned otherwise than the plan says", wrong)
    if allowed.moved:
        return
    problems.note("units with two variants", (unit.hex() for unit, variants in drawn.items() if len(variants) > 1))
    used = {slots[one.revision] for one in requests if one.revision in slots}
    splits = {msgspec.json.encode([[slot.start, slot.variant] for slot in one]).decode() for one in used}
    problems.note("another split than the first", sorted(splits)[1:])


def _outcomes(log: Log, store: Tables, allowed: Allowed, problems: Problems) -> int:
    """What was acknowledged is there; returns how many have another value than the one acknowledged first."""
    rows = store.rows("SELECT decision, metric, id, value FROM outcome")
    kept = {Key(*row[:3]): row[3] for row in rows}
    assert len(kept) == len(rows), "an outcome is there twice"
    set_aside = _late(store)
    problems.note("acknowledged, and not in the store", log.acknowledged.keys() - kept.keys() - set_aside.keys())
    problems.note("in the store, and never sent", (key for key in kept if kept[key] not in log.tried.get(key, ())))
    # Until the first acknowledgement an outcome is sent with one value alone, so that is the one to be kept.
    changed = [key for key, value in log.acknowledged.items() if kept.get(key, value) != value]
    if not allowed.several_nodes:
        problems.note("another value than the one acknowledged first", changed)
    return len(changed)


def _late(store: Tables) -> dict[Key, float]:
    """Outcomes that came after their spool had been given up: kept, and never folded."""
    bodies = [msgspec.json.decode(body, type=Fact) for (body,) in store.rows("SELECT body FROM late_fact")]
    return {Key(one.decision, one.metric, one.id): one.value for one in bodies if isinstance(one, Outcome)}


def _votes(store: Tables, problems: Problems) -> None:
    """One vote for each unit (the split stands still), and nothing folded that is not there."""
    units = _number(store, "SELECT count(DISTINCT unit) FROM request WHERE experiment = ?", EXPERIMENT)
    votes = _number(store, "SELECT count(*) FROM vote WHERE experiment = ?", EXPERIMENT)
    if votes > units:
        problems["more votes than units"] = [votes, units]
    for metric, folded in store.rows("SELECT metric, ordinal FROM cursor WHERE experiment = ?", (EXPERIMENT,)):
        if folded > votes:
            problems[f"{metric}: folded beyond the votes"] = [folded, votes]


def _number(store: Tables, sql: str, *parameters: Any) -> int:
    return int(store.row(sql, parameters)[0])
