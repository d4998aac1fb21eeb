"""One connection to PostgreSQL: opened when it is needed, bounded in every wait, given up when it breaks.

It keeps nothing in the session that outlives a transaction, so a pooler may stand in between (PgBouncer, pooling
transactions): settings are SET LOCAL, locks belong to transactions, nothing is prepared or listened to.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from gateway.clock import Clock
from gateway.errors import StoreError, StoreUnavailable, StoreUnreachable

_CONNECT: Final[dict[str, Any]] = {
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 5000,
    "client_encoding": "UTF8",
    "application_name": "ab-gateway",
}
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0  # seconds between two tries to connect


class _Bounded(psycopg.Connection[Any]):
    """Waits no longer for an answer than the deadline: a server that was stopped says nothing at all."""

    deadline = 30.0

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        return super().wait(gen, interval, self.deadline if timeout is None else timeout)


class Session:
    """Raises StoreUnavailable where the server cannot be reached, StoreError for everything else that it refuses."""

    def __init__(
        self, url: str, clock: Clock, deadline: float = 30.0, jitter: Callable[[], float] = random.random
    ) -> None:
        """`deadline` is for one answer, in seconds; `jitter` gives numbers in [0, 1).

        Raises StoreError for what is no URL of a database.
        """
        self.place = place(url)
        self._parameters = _CONNECT | parameters(url)
        self._clock = clock
        self._deadline = deadline
        self._jitter = jitter
        self._db: _Bounded | None = None
        self._failures = 0
        self._next_try = 0.0
        self._unreachable = ""  # and why
        self._closed = False
        self.lost = False  # whether a connection broke since `renew`

    @property
    def db(self) -> _Bounded:
        """The connection, opened anew if the last one broke; after a failure not before a pause has passed."""
        if self._closed:
            raise StoreError(f"{self.place}: closed")
        if self._db is None:
            self._db = self._connect()
        return self._db

    @property
    def open(self) -> psycopg.Connection[Any] | None:
        """The connection, if there is one."""
        return self._db

    @contextmanager
    def patience(self, seconds: float) -> Iterator[psycopg.Connection[Any]]:
        """The connection, while an answer may take so long."""
        connection = self.db
        connection.deadline = seconds
        try:
            yield connection
        finally:
            connection.deadline = self._deadline

    def renew(self) -> None:
        """Trust nothing of the last connection."""
        self.drop()
        self.lost = False

    def drop(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def close(self) -> None:
        self.drop()
        self._closed = True

    def failed(self, error: psycopg.Error) -> StoreError:
        """What is raised in its place. A connection that broke, or that leads to a server that takes no writes any
        more, is given up."""
        said = f"{self.place}: {_line(error)}"
        if self._db is not None and not _unusable(self._db, error):
            return StoreError(said)
        self.drop()
        self.lost = True
        return StoreUnavailable(said)

    def _connect(self) -> _Bounded:
        now = self._clock.monotonic()
        if now < self._next_try:
            again = f"it is asked again in {self._next_try - now:.1f} s"
            raise StoreUnreachable(f"{self.place}: {self._unreachable}; {again}")
        try:
            connection = _Bounded.connect(
                make_conninfo(**self._parameters),
                autocommit=True,
                prepare_threshold=None,
                cursor_factory=psycopg.ClientCursor,
            )
        except psycopg.Error as error:
            # Everybody lost it at the same moment; not everybody should come back at the same moment.
            pause = min(_FIRST_PAUSE * 2.0 ** min(self._failures, 10), _LONGEST_PAUSE) * (0.5 + self._jitter())
            self._failures += 1
            self._next_try = self._clock.monotonic() + pause
            self._unreachable = f"cannot be reached: {_line(error)}"
            raise StoreUnreachable(f"{self.place}: {self._unreachable}") from error
        self._failures = 0
        connection.deadline = self._deadline
        return connection


# The server ends or has no room; it ended our transaction; it was a primary and is a standby now.
_UNUSABLE = (
    psycopg.errors.AdminShutdown,
    psycopg.errors.CrashShutdown,
    psycopg.errors.CannotConnectNow,
    psycopg.errors.IdleInTransactionSessionTimeout,
    psycopg.errors.ReadOnlySqlTransaction,
)


def _unusable(connection: psycopg.Connection[Any], error: psycopg.Error) -> bool:
    """Also where an answer is still to come, after a deadline."""
    status = connection.info.transaction_status
    waiting = status in (psycopg.pq.TransactionStatus.ACTIVE, psycopg.pq.TransactionStatus.UNKNOWN)
    return connection.closed or waiting or isinstance(error, _UNUSABLE)


_EXPECTED: Final = "expected postgresql://user@host/database, spelled as URLs are, and options that libpq knows"


def parameters(url: str) -> dict[str, Any]:
    """What libpq makes of a URL; raises StoreError, in which nothing of the URL is repeated: it may hold a password."""
    try:
        known = conninfo_to_dict(url)
    except psycopg.Error as error:
        raise StoreError(_EXPECTED) from error
    # A password with a slash in it, not spelled as URLs want it, would pass for the name of a database.
    if set("/@") & set(str(known.get("dbname", ""))) or not re.fullmatch("[0-9,]*", str(known.get("port", ""))):
        raise StoreError(_EXPECTED)
    return known


def place(url: str) -> str:
    """What may be said of a database: where it is, and its name."""
    known = parameters(url)
    port = f":{known['port']}" if "port" in known else ""
    return f"postgresql://{known.get('host', '')}{port}/{known.get('dbname', '')}"


def _line(error: psycopg.Error) -> str:
    """One line: what the server said, or why it cannot be heard."""
    text = error.diag.message_primary or str(error).strip() or type(error).__name__
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0].removeprefix("connection failed: ") if lines else type(error).__name__
