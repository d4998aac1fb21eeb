"""Who is there, who leads, and what is given out once: the half of a store that only several nodes need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import psycopg

from gateway.errors import LeaseLost, StoreError
from gateway.store.base import LedgerRow
from gateway.store.cluster import SPOOLS, Lease, Node, revision_after
from gateway.store.postgres.connection import Connection
from gateway.store.releases import ReleaseTables

LEDGER_LOCK: Final = 0x41424757_0000_0003  # of pg_advisory_xact_lock
JOIN_LOCK: Final = 0x41424757_0000_0004
LEADER_LOCK: Final = 0x41424757  # of pg_advisory_xact_lock_shared, beside a node's number: who is in a transaction
_STUCK: Final = 5.0  # seconds after the end of a lease
_NODE: Final = (
    "number, id, name, through, given_up, config_digest, plan_revision, trouble,"
    " CAST(extract(epoch FROM clock_timestamp() - reported_at) AS DOUBLE PRECISION)"
)
_LEASE: Final = (
    "holder, epoch, CAST(extract(epoch FROM until - clock_timestamp()) AS DOUBLE PRECISION),"
    " CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION)"
)


class PostgresNodes(Connection, ReleaseTables):
    """Implements what `store.cluster.SharedStore` adds to a store."""

    _epoch = 0  # of the lease that this node took last, 0 if it gave it up
    _shipments: int | None = None  # that are committed, as far as this process knows
    _shipping: int | None = None  # what they will be with the present one

    # ------------------------------------------------------------------ nodes

    def join(self, id: str, name: str, keys: str) -> int:
        with self.transaction(durable=True):
            self.row(f"SELECT pg_advisory_xact_lock({JOIN_LOCK})")
            watermark = self._folded_through()
            others = self.rows(
                "SELECT number, name FROM node WHERE id <> ? AND keys <> ? AND NOT forgotten ORDER BY number",
                (id, keys),
            )
            if others:
                number, known = others[0]
                raise StoreError(
                    f"{self._session.place}: node {number} ({known}) has other keys: give all nodes the same"
                )
            # Whoever was not waited for begins where the others are.
            (self.node,) = self.row(
                "INSERT INTO node AS n (number, id, name, keys, through, given_up, reported_at)"
                " SELECT coalesce(max(number), 0) + 1, :id, :name, :keys, :watermark, :watermark, clock_timestamp()"
                " FROM node ON CONFLICT (id) DO UPDATE SET name = excluded.name, keys = excluded.keys,"
                " through = CASE WHEN n.forgotten THEN greatest(n.through, excluded.through) ELSE n.through END,"
                " given_up = CASE WHEN n.forgotten THEN greatest(n.given_up, excluded.given_up) ELSE n.given_up END,"
                " reported_at = excluded.reported_at, forgotten = FALSE RETURNING number",
                {"id": id, "name": name, "keys": keys, "watermark": watermark},
            )
        return self.node

    def claim_spools(self) -> int:
        first: int = self.row(
            "UPDATE cluster SET next_spool = ? + greatest(next_spool,"
            " (SELECT coalesce(max(spool), 0) + 1 FROM stream)) RETURNING next_spool - ?",
            (SPOOLS, SPOOLS),
        )[0]
        return first

    def report(self, name: str, config_digest: str, plan_revision: int, trouble: str) -> None:
        self._only_me(
            self.write(
                "UPDATE node SET name = ?, config_digest = ?, plan_revision = ?, trouble = ?,"
                " reported_at = clock_timestamp() WHERE number = ? AND NOT forgotten",
                (name, config_digest, plan_revision, trouble, self.node),
            )
        )

    def nodes(self) -> list[Node]:
        return [Node(*row) for row in self.rows(f"SELECT {_NODE} FROM node WHERE NOT forgotten ORDER BY number")]

    def forget(self, node: int) -> None:
        self.write("UPDATE node SET forgotten = TRUE WHERE number = ?", (node,))

    @contextmanager
    def one_moment(self) -> Iterator[None]:
        with self.transaction():
            self.write("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield

    def note_through(self, through: int) -> int:
        # The row is locked first: a leader that gives this node up meanwhile is waited for, or waits.
        row = self.row(
            "SELECT through, given_up, shipments FROM node WHERE number = ? AND NOT forgotten FOR UPDATE", (self.node,)
        )
        self._only_me(0 if row is None else 1)
        stored, given_up, shipments = row
        if self._shipments not in (None, shipments):
            # A server that crashes forgets what it had not written to its disk yet; a pooler in between hides that.
            raise StoreError(f"{self._session.place}: not what this node has shipped last: it must start over")
        self._shipping = shipments + 1
        self.write(
            "UPDATE node SET through = greatest(through, ?), shipments = ? WHERE number = ?",
            (through, self._shipping, self.node),
        )
        late_before: int = max(given_up, self._folded_through()) if given_up > stored else stored
        return late_before

    def _folded_through(self) -> int:
        """The watermark; nobody folds meanwhile, and what is folded next is folded with this transaction in view.

        A leader that is about to begin has its view already: it must find the row changed, and look again.
        """
        self.write("UPDATE lease SET epoch = epoch")
        watermark: int = self.row("SELECT coalesce(max(watermark), 0) FROM fold_step")[0]
        return watermark

    def _committed(self) -> None:
        super()._committed()
        if self._shipping is not None:
            self._shipments, self._shipping = self._shipping, None

    def _rolled_back(self) -> None:
        super()._rolled_back()
        self._shipping = None

    def give_up(self, node: int, watermark: int) -> None:
        self.write(
            "UPDATE node SET given_up = ? WHERE number = ? AND given_up < ?",
            (watermark, node, watermark),
        )

    def _only_me(self, found: int) -> None:
        if found != 1:
            raise StoreError(f"{self._session.place}: node {self.node} was forgotten: it must join anew")

    # ------------------------------------------------------------------ the lease

    def lead(self, seconds: float) -> Lease:
        try:
            with self.transaction(durable=True):
                self.write("SET LOCAL lock_timeout = '250ms'")
                row = self._take_lease(seconds) or self._lease()
        except StoreError as error:
            if not isinstance(error.__cause__, psycopg.errors.LockNotAvailable):
                raise
            # The holder, or somebody who would be, is in the midst of something: the row can be read all the same.
            row = self._lease()
            if row[2] < -_STUCK:
                self._end_transactions(row[0])
        lease = Lease(row[0], row[1], max(0.0, row[2]), row[3])
        if lease.holder != self.node:
            self._epoch = 0
        return lease

    def _take_lease(self, seconds: float) -> Any:
        row = self.row(
            "UPDATE lease SET holder = :me, until = clock_timestamp() + make_interval(secs => :seconds), epoch ="
            " CASE WHEN holder = :me AND epoch = :epoch AND until > clock_timestamp() THEN epoch ELSE epoch + 1 END"
            f" WHERE holder = :me OR until <= clock_timestamp() RETURNING {_LEASE}",
            {"me": self.node, "epoch": self._epoch, "seconds": seconds},
        )
        if row is not None:
            self._epoch = row[1]
        return row

    def _lease(self) -> Any:
        return self.row(f"SELECT {_LEASE} FROM lease")

    def _end_transactions(self, holder: int) -> None:
        """Of a leader whose lease has run out, and that keeps it locked: it was stopped while it read an answer, which
        no timeout of the server's ends."""
        self.row(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' AND granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            " AND classid = ? AND objid = ? AND objsubid = 2",
            (LEADER_LOCK, holder),
        )

    def resign(self) -> None:
        self.write(
            "UPDATE lease SET holder = 0, until = clock_timestamp() WHERE holder = ? AND epoch = ?",
            (self.node, self._epoch),
        )
        self._epoch = 0

    def _begin(self, durable: bool, leading: bool) -> None:
        if not leading:
            super()._begin(durable, leading)
        elif not (self._lead_begun(durable) or self._lead_begun(durable)):
            self._epoch = 0
            raise LeaseLost(f"{self._session.place}: this node does not lead any more")

    def _lead_begun(self, durable: bool) -> bool:
        """Whether the transaction of a leader is open. Somebody may just have touched the lease: then look again."""
        super()._begin(durable, leading=True)
        held = (
            "SELECT pg_try_advisory_xact_lock_shared(?, CAST(holder AS INTEGER)) FROM lease"
            " WHERE holder = ? AND epoch = ? FOR SHARE"
        )
        begun = False
        try:
            begun = bool(self._epoch) and self.row(held, (LEADER_LOCK, self.node, self._epoch)) is not None
        except StoreError as error:
            if not isinstance(error.__cause__, psycopg.errors.SerializationFailure):
                raise
        finally:
            if not begun:
                self._roll_back()
        return begun

    def _forget(self) -> None:
        super()._forget()
        self._epoch = 0
        self._shipments = None

    # ------------------------------------------------------------------ decisions

    def append_ledger(
        self, at: int, step: int, endpoint: str, experiment: str, kind: str, body: Mapping[str, Any]
    ) -> LedgerRow:
        with self.together():
            self.row(f"SELECT pg_advisory_xact_lock({LEDGER_LOCK})")
            return super().append_ledger(at, step, endpoint, experiment, kind, body)

    def next_revision(self, after: int) -> int:
        last = self.row("SELECT max(revision) FROM plan")[0] or 0
        return revision_after(max(last, after), self.node)
