from tests.postgres import fresh_database, migrated, postgres
from tests.unit.export.conftest import log, logs, sqlite_log

__all__ = ["fresh_database", "log", "logs", "migrated", "postgres", "sqlite_log"]
