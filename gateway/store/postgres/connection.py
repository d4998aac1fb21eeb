"""Statements and transactions over one session, each with its own bounds of time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus

from gateway.clock import Clock
from gateway.errors import StoreError, StoreUnreachable
from gateway.store.keeping import DAY_US
from gateway.store.postgres.dialect import array, insert, translated
from gateway.store.postgres.migrating import MIGRATING, expect_schema, expect_whole, migrate
from gateway.store.postgres.session import Session
from gateway.store.tables import FINITE, Parameters, Tables

# Votes are read in their order and seldom to the end, and facts are looked up: a plan that begins by reading all facts,
# as the planner likes for tables that it does not know yet, would take hours.
_PLANS: Final = "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL jit = off"
# Whoever writes has locks that others wait for: a writer that was stopped in mid-transaction loses them. And who waits
# for an answer stops nothing that harms: what a round does is bounded, so an answer that takes longer will not come.
_WRITER: Final = (
    "SET LOCAL statement_timeout = '8s'; SET LOCAL lock_timeout = '5s'"
    f"; SET LOCAL idle_in_transaction_session_timeout = '5s'; {_PLANS}"
)
_READER: Final = (
    "SET LOCAL statement_timeout = '10min'; SET LOCAL idle_in_transaction_session_timeout = '10min'"
    f"; SET LOCAL transaction_read_only = on; {_PLANS}"
)
_WRITER_WAITS, _READER_WAITS = 10.0, 630.0  # seconds for an answer: longer than a statement may take
_FIRST_PART, _LARGEST_PART = 256, 8192  # rows of a stream fetched at a time
_STATEMENTS = 500  # sent together


class Connection(Tables):
    """Implements `tables.Tables`. Use from one thread at a time.

    A read or write outside of a transaction is one of its own. After a connection broke nothing is written until
    `recover`: what was committed last may be gone, so whoever writes must start over from what is there.
    """

    expects_whole = True  # but not who completes what is not

    def __init__(self, url: str, clock: Clock, *, read_only: bool = False) -> None:
        """Opens nothing yet."""
        self._session = Session(url, clock, _READER_WAITS if read_only else _WRITER_WAITS)
        self._clock = clock
        self._read_only = read_only
        self._settings = _READER if read_only else _WRITER
        self._current = False  # whether the schema was looked at
        self._columns: dict[str, dict[str, str]] = {}
        self._streams = 0
        self._forget()

    def close(self) -> None:
        self._session.close()

    @property
    def wal_bytes(self) -> int:
        return 0

    def recover(self) -> None:
        """Give up the connection and whatever is remembered of it; open another one. Raises StoreUnavailable."""
        self._session.renew()
        self._current = False
        self._forget()
        self._connected()

    def _forget(self) -> None:
        """What was learned from rows that may be gone."""

    def _committed(self) -> None:
        """What was learned in the transaction is true."""

    def _rolled_back(self) -> None:
        """It is not."""

    # ------------------------------------------------------------------ transactions

    @contextmanager
    def transaction(self, *, durable: bool = False, leading: bool = False) -> Iterator[None]:
        if self._session.lost and not self._read_only:
            raise StoreUnreachable(f"{self._session.place}: the connection broke: what was begun must be started over")
        self._begin(durable, leading)
        try:
            yield
            with self._errors():
                done = self._connected().execute("COMMIT").statusmessage
            if done != "COMMIT":  # but ROLLBACK, without an error: a statement had failed, and somebody went on
                raise StoreError(f"{self._session.place}: a failed transaction was to be committed")
        except BaseException as error:
            self._roll_back()
            if isinstance(error, psycopg.Error):
                raise self._session.failed(error) from error
            raise
        self._committed()

    @property
    def within(self) -> bool:
        """Whether a transaction is open."""
        db = self._session.open
        return db is not None and db.info.transaction_status != TransactionStatus.IDLE

    @contextmanager
    def together(self) -> Iterator[None]:
        """The transaction that is open, or one of its own."""
        if self.within:
            yield
        else:
            with self.transaction(durable=True):
                yield

    def _roll_back(self) -> None:
        self._rolled_back()
        if (db := self._session.open) is not None:
            with suppress(psycopg.Error):
                if db.info.transaction_status != TransactionStatus.IDLE:
                    db.execute("ROLLBACK")

    def _begin(self, durable: bool, leading: bool) -> None:
        # One moment of the store for who only looks, and for who leads: what is shipped meanwhile is of the next step.
        isolation = "REPEATABLE READ" if leading or self._read_only else "READ COMMITTED"
        waits = "on" if durable else "off"  # facts are in spools until they are on the disk of this server
        db = self._connected()
        if self.within:
            raise StoreError(f"{self._session.place}: a transaction within a transaction")
        with self._errors():
            db.execute(f"BEGIN ISOLATION LEVEL {isolation}; SET LOCAL synchronous_commit = {waits}; {self._settings}")

    # ------------------------------------------------------------------ statements

    def rows(self, sql: str, parameters: Parameters = ()) -> list[Any]:
        with self._errors():
            return self._execute(sql, parameters).fetchall()

    def row(self, sql: str, parameters: Parameters = ()) -> Any:
        with self._errors():
            return self._execute(sql, parameters).fetchone()

    def write(self, sql: str, parameters: Parameters = ()) -> int:
        with self._errors():
            return self._execute(sql, parameters).rowcount

    def write_all(self, sql: str, rows: Iterable[Sequence[Any]]) -> int:
        rows = list(rows)
        if not rows:
            return 0
        taken_apart = insert(sql)
        with self.together(), self._errors():
            if taken_apart is None:
                return self._execute_each(sql, rows)
            types = self._types(taken_apart.table)
            kinds = [types[column] for column in taken_apart.columns]
            columns = zip(*rows, strict=True)
            arrays = [array(values, kind) for values, kind in zip(columns, kinds, strict=True)]
            return self._connected().execute(taken_apart.of_arrays(kinds), arrays).rowcount

    def copy(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """COPY rows in; inside a transaction."""
        with self._errors(), self._connected().cursor() as cursor, cursor.copy(sql.encode()) as copy:
            for row in rows:
                copy.write_row(row)

    def stream(self, sql: str, parameters: Parameters = ()) -> Iterator[Any]:
        """Rows fetched in parts, small ones first: the reader may have seen enough soon."""
        if not self.within:
            with self.transaction():
                yield from self.stream(sql, parameters)
            return
        self._streams += 1
        name = f"stream_{self._streams}"
        self.write(f"DECLARE {name} NO SCROLL CURSOR FOR {sql}", parameters)
        part = _FIRST_PART
        while rows := self.rows(f"FETCH {part} FROM {name}"):
            yield from rows
            if len(rows) < part:
                break
            part = min(part * 4, _LARGEST_PART)

    def _execute(self, sql: str, parameters: Parameters) -> psycopg.Cursor[Any]:
        db = self._connected()
        if self.within:
            return db.execute(translated(sql), parameters)
        cursor = db.execute(f"{self._settings}; {translated(sql)}", parameters)
        while cursor.nextset():
            pass  # the results of the settings
        return cursor

    def _execute_each(self, sql: str, rows: Sequence[Sequence[Any]]) -> int:
        """One statement for each row, many of them in one message."""
        changed = 0
        with psycopg.ClientCursor(self._connected()) as cursor:
            for begin in range(0, len(rows), _STATEMENTS):
                part = rows[begin : begin + _STATEMENTS]
                cursor.execute("; ".join(cursor.mogrify(translated(sql), row) for row in part))
                changed += cursor.rowcount
                while cursor.nextset():
                    changed += cursor.rowcount
        return changed

    def _types(self, table: str) -> dict[str, str]:
        if table not in self._columns:
            found = self.rows(
                "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute"
                " WHERE attrelid = to_regclass(?) AND attnum > 0 AND NOT attisdropped",
                (table,),
            )
            self._columns[table] = dict(found)
        return self._columns[table]

    # ------------------------------------------------------------------ dialect

    def among(self, column: str, values: Sequence[Any]) -> tuple[str, Any]:
        if not values:
            return "CAST(? AS TEXT) <> ''", ""
        kind = "text" if isinstance(values[0], str) else "bigint"
        return f"{column} = ANY(CAST(? AS {kind}[]))", array(values, kind)

    def same_day(self, fact: str, assigned: str) -> str:
        return f" AND {fact}.day = {assigned} / {DAY_US}"

    def on_days(self, times: Collection[int]) -> str:
        days = sorted({at // DAY_US for at in times})
        return f" AND day IN ({', '.join(map(str, days))})" if days else ""

    def object_of(self, name: str, value: str) -> str:
        return f"CAST(json_object_agg({name}, CASE WHEN {value} {FINITE} THEN {value} END) AS TEXT)"

    def sum_of(self, value: str, order: str) -> str:
        return f"sum({value} ORDER BY {order})"

    # ------------------------------------------------------------------ errors

    def _connected(self) -> psycopg.Connection[Any]:
        """The connection, after a look at the schema of a database that was not met before."""
        with self._errors():
            db = self._session.db
            if not self._current:
                if self._read_only:
                    expect_schema(db, self._session.place)
                else:
                    with self._session.patience(MIGRATING):
                        migrate(db, self._session.place)
                if self.expects_whole:
                    expect_whole(db, self._session.place)
                self._columns.clear()
                self._current = True
            return db

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise self._session.failed(error) from error
