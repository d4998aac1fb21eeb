"""What is not kept for ever: units that are erased, days whose requests expire. Statements that engines share.

What a vote counts outlives its request in `settled`. How a day's rows are deleted, and how a unit's requests are found,
is each engine's own, for here they are laid out differently.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from base64 import b64encode
from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple, Protocol

from gateway.store.auditing import Auditable, AuditTables
from gateway.store.base import FOREVER, Erasure, UnitKey
from gateway.store.facts import signed

DAY_US: Final = 86_400_000_000
_PART: Final = 5_000  # decisions in one statement


class UnitRequest(NamedTuple):
    """A request of a unit that is to be forgotten."""

    decision: int
    at: int
    experiment: str
    bucket: int  # the assignment hash
    unit: bytes


class VotePlace(NamedTuple):
    """Where a vote stands."""

    ordinal: int
    at: int
    decision: int  # 0 once its unit is erased


class Keeping(Auditable, Protocol):
    """A store from which something goes. Raises StoreError when the engine fails."""

    # erasure
    def ask_erasure(self, erasure: Erasure) -> None:
        """Of a unit that is known here already the later one counts."""

    def erased_through(self, erasure: Erasure, through: int) -> None:
        """What the unit did before is forgotten."""

    def drop_erasures(self, now: int, complete: int) -> None:
        """Those whose date has come, and of which nothing can come any more: `complete` is the time before which
        everything that exists is here."""

    def requests_of_erased(self, after: int, end: int, asked: int) -> list[UnitRequest]:
        """Requests with decision ids in (after, end) of units whose erasure was asked for by a time and is due."""

    def next_decision(self, after: int) -> int | None:
        """The first assignment behind a decision id."""

    def anonymise(self, experiment: str, ordinal: int, at: int, *, covariates: bool) -> None:
        """From now on nothing of a vote says whose it was; `covariates` stay where the evidence is made of them."""

    def forget_requests(self, requests: Collection[UnitRequest], until: int) -> None:
        """Delete everything about them; what still comes of them until then is refused."""

    def forget_revisits(self, experiment: str, votes: Collection[int]) -> None:
        """Which later requests belonged to the votes of these decisions."""

    def forget_units(self, keys: Iterable[UnitKey]) -> None: ...
    def forget_unit_outcomes(self, unit: bytes, experiments: Sequence[str], before: int) -> None:
        """Outcomes by unit that wait for their votes, or came too late."""

    # retention
    def first_day(self) -> int | None:
        """The day of the oldest request that is there, days since the Unix epoch (UTC); roughly is enough."""

    def expired_through(self) -> int:
        """The time before which requests are deleted, or are being deleted; 0 for none."""

    def expire(self, day: int, at: int) -> None:
        """Write down that a day's requests go."""

    def drop_day(self, day: int, most: int) -> int:
        """Delete requests of a day, and what came of them, in a transaction of its own.

        About `most` requests, where to delete takes time; returns how many went, 0 when nothing is left.
        """

    def drop_late(self, before: int) -> None:
        """Delete what was set aside of facts from before a time."""

    def settled_through(self, experiment: str) -> int:
        """The vote up to which everything is settled."""

    def settle_through(self, experiment: str, ordinal: int) -> None: ...
    def vote_places(self, experiment: str, after: int, limit: int) -> list[VotePlace]:
        """The first votes behind an ordinal."""


class KeepTables(AuditTables):
    """The statements of `Keeping` that engines share."""

    # ------------------------------------------------------------------ erasure

    def erasures(self) -> list[Erasure]:
        rows = self.rows("SELECT unit, endpoint, at, through, until, buckets FROM erasure ORDER BY at, unit, endpoint")
        return [
            Erasure(bytes(unit), endpoint, at, through, until, json.loads(buckets))
            for unit, endpoint, at, through, until, buckets in rows
        ]

    def ask_erasure(self, erasure: Erasure) -> None:
        self.write(
            "INSERT INTO erasure (unit, endpoint, at, through, until, buckets) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (unit, endpoint) DO UPDATE SET at = excluded.at, through = excluded.through,"
            " until = excluded.until, buckets = excluded.buckets",
            (*erasure[:5], json.dumps(erasure.buckets)),
        )

    def erased_through(self, erasure: Erasure, through: int) -> None:
        self.write(
            "UPDATE erasure SET through = ?, buckets = '{}' WHERE unit = ? AND endpoint = ?",
            (through, erasure.unit, erasure.endpoint),
        )

    def drop_erasures(self, now: int, complete: int) -> None:
        self.write("DELETE FROM erasure WHERE through > 0 AND through <= ? AND until <= ?", (complete, now))
        # The decisions of an erasure have its date, or a later one.
        kept = "(SELECT coalesce(min(until), ?) FROM erasure WHERE through > 0)"
        self.write(f"DELETE FROM erased WHERE until <= ? AND until < {kept}", (now, FOREVER))

    def erased_among(self, decisions: Collection[int]) -> set[int]:
        found: set[int] = set()
        for part in _parts(decisions):
            condition, among = self.among("decision", part)
            found.update(
                decision for (decision,) in self.rows(f"SELECT decision FROM erased WHERE {condition}", (among,))
            )
        return found

    def add_erased(self, decisions: Collection[int], until: int) -> None:
        self.write_all(
            "INSERT INTO erased (decision, until) VALUES (?, ?)"
            " ON CONFLICT (decision) DO UPDATE SET until = excluded.until",
            [(decision, until) for decision in decisions],
        )

    def requests_of_erased(self, after: int, end: int, asked: int) -> list[UnitRequest]:
        rows = self.rows(
            "SELECT a.decision, a.at, d.experiment, a.bucket, a.unit FROM assignment a JOIN draw d ON d.id = a.draw"
            " WHERE a.decision > :after AND a.decision < :until"
            # Twice: mostly it is nobody's, and that is found out first.
            " AND a.unit IN (SELECT unit FROM erasure WHERE through = 0 AND at <= :asked)"
            " AND EXISTS (SELECT 1 FROM erasure e WHERE e.unit = a.unit AND e.through = 0 AND e.at <= :asked"
            " AND (e.endpoint = '' OR e.endpoint = d.endpoint))",
            {"after": after, "until": end, "asked": asked},
        )
        return [
            UnitRequest(decision, at, experiment, bucket % (1 << 64), bytes(unit))
            for decision, at, experiment, bucket, unit in rows
        ]

    def next_decision(self, after: int) -> int | None:
        row = self.row("SELECT min(decision) FROM assignment WHERE decision > ?", (after,))
        return None if row is None else row[0]

    def anonymise(self, experiment: str, ordinal: int, at: int, *, covariates: bool) -> None:
        kept = "" if covariates else ", covariates = '[]'"
        self.write(
            f"UPDATE vote SET decision = 0, at = ?{kept} WHERE experiment = ? AND ordinal = ?",
            (at, experiment, ordinal),
        )

    def forget_requests(self, requests: Collection[UnitRequest], until: int) -> None:
        times = [request.at for request in requests]
        for part in _parts(request.decision for request in requests):
            condition, among = self.among("decision", part)
            for table in _BY_DAY:
                self.write(f"DELETE FROM {table} WHERE {condition}{self.on_days(times)}", (among,))
            self.write(f"DELETE FROM late_fact WHERE {condition}", (among,))
        self.add_erased([request.decision for request in requests], until)

    def forget_revisits(self, experiment: str, votes: Collection[int]) -> None:
        for part in _parts(votes):
            condition, among = self.among("vote", part)
            self.write(f"DELETE FROM revisit WHERE experiment = ? AND {condition}", (experiment, among))

    def forget_units(self, keys: Iterable[UnitKey]) -> None:
        self.write_all(
            "DELETE FROM unit WHERE experiment = ? AND bucket = ? AND unit = ?",
            [(key.experiment, signed(key.bucket), key.unit) for key in keys],
        )

    def forget_unit_outcomes(self, unit: bytes, experiments: Sequence[str], before: int) -> None:
        condition, among = self.among("experiment", list(experiments))
        self.write(f"DELETE FROM unit_outcome WHERE unit = ? AND at < ? AND {condition}", (unit, before, among))
        # Of the others only the body says whose they are, as JSON.
        text = f'%"{b64encode(unit).decode()}"%'
        self.write("DELETE FROM late_fact WHERE kind = 'unitoutcome' AND body LIKE ?", (text,))

    # ------------------------------------------------------------------ retention

    @abstractmethod
    def first_day(self) -> int | None: ...

    @abstractmethod
    def drop_day(self, day: int, most: int) -> int: ...

    def expired_through(self) -> int:
        (day,) = self.row("SELECT max(day) FROM expired")
        return 0 if day is None else (day + 1) * DAY_US

    def expire(self, day: int, at: int) -> None:
        self.write("INSERT INTO expired (day, at) VALUES (?, ?) ON CONFLICT (day) DO NOTHING", (day, at))

    def settled_through(self, experiment: str) -> int:
        row = self.row("SELECT ordinal FROM settling WHERE experiment = ?", (experiment,))
        return row[0] if row else 0

    def settle_through(self, experiment: str, ordinal: int) -> None:
        self.write(
            "INSERT INTO settling (experiment, ordinal) VALUES (?, ?)"
            " ON CONFLICT (experiment) DO UPDATE SET ordinal = excluded.ordinal",
            (experiment, ordinal),
        )

    def drop_late(self, before: int) -> None:
        self.write("DELETE FROM late_fact WHERE at < ?", (before,))

    def vote_places(self, experiment: str, after: int, limit: int) -> list[VotePlace]:
        rows = self.rows(
            "SELECT ordinal, at, decision FROM vote WHERE experiment = ? AND ordinal > ? ORDER BY ordinal LIMIT ?",
            (experiment, after, limit),
        )
        return [VotePlace(*row) for row in rows]


_BY_DAY: Final = ("assignment", "completion", "shadow", "outcome")


def _parts(decisions: Iterable[int]) -> Iterable[list[int]]:
    ordered = sorted(decisions)
    return (ordered[begin : begin + _PART] for begin in range(0, len(ordered), _PART))
