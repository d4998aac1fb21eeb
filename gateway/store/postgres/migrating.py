"""The schema of a database: made, brought up to date, or refused.

All of one upgrade is one transaction under one lock. Of nodes that find an old schema together one does it, and the
others find it done.
"""

from __future__ import annotations

from importlib import resources
from typing import Any, Final

import psycopg

from gateway.errors import StoreError

SCHEMA_VERSION: Final = 1
LOCK: Final = 0x41424757_0000_0001  # of pg_advisory_xact_lock: "ABGW", and what for
MIGRATING: Final = 630.0  # seconds for an answer: a step may have to read every row
_PATIENCE: Final = "600s"  # while another node migrates


def expect_schema(db: psycopg.Connection[Any], place: str) -> None:
    """Whoever only looks migrates nothing."""
    version = _version(db)
    if version != SCHEMA_VERSION:
        found = f"its schema is {version}, this program's {SCHEMA_VERSION}" if version else "there is no store in it"
        raise StoreError(f"{place}: {found}: start the gateway once")


def expect_whole(db: psycopg.Connection[Any], place: str) -> None:
    """Nobody serves from, or reads, what `gateway migrate` has not finished."""
    found = db.execute("SELECT to_regclass('migration_progress') IS NULL").fetchone()
    if not found or not found[0]:
        raise StoreError(f"{place}: a migration into it is not finished: run `gateway migrate` again, or drop it")


def migrate(db: psycopg.Connection[Any], place: str) -> None:
    """Raises StoreError for a newer schema; psycopg.Error if a step fails, and then nothing has changed."""
    if _known(_version(db), place) == SCHEMA_VERSION:
        return
    with db.transaction():
        db.execute(f"SET LOCAL lock_timeout = '{_PATIENCE}'; SELECT pg_advisory_xact_lock({LOCK})".encode())
        version = _known(_version(db), place)
        if version == 0:
            db.execute("CREATE TABLE gateway_schema (version BIGINT NOT NULL)")
            db.execute("INSERT INTO gateway_schema VALUES (0)")
        folder = resources.files("gateway.store") / "migrations" / "postgres"
        for number in range(version + 1, SCHEMA_VERSION + 1):
            db.execute((folder / f"{number:04d}.sql").read_bytes())
        db.execute(f"UPDATE gateway_schema SET version = {SCHEMA_VERSION}".encode())


def _version(db: psycopg.Connection[Any]) -> int:
    """0 for a database without any."""
    found = db.execute("SELECT to_regclass('gateway_schema') IS NOT NULL").fetchone()
    if not found or not found[0]:
        return 0
    row = db.execute("SELECT version FROM gateway_schema").fetchone()
    return row[0] if row else 0


def _known(version: int, place: str) -> int:
    if version > SCHEMA_VERSION:
        raise StoreError(f"{place}: schema {version} is newer than this program's {SCHEMA_VERSION}")
    return version
