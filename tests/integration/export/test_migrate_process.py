"""`gateway migrate`, killed at any moment and run again."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from gateway.export.migration.tables import KEYS
from gateway.export.source import open_readable
from tests.postgres import PostgresServer
from tests.unit.export.logs import Logged

pytestmark = pytest.mark.process

# Chunks of ten rows, and after so many of them the process is killed by itself, in the midst of a transaction.
_DYING = """
import os, signal, sys
from gateway.cli import main
from gateway.export.migration import copying
copying.CHUNK = 10
advance, left = copying.Copying._advance, int(sys.argv.pop(1))
def dying(self, *how):
    global left
    left -= 1
    found = advance(self, *how)
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return found
copying.Copying._advance = dying
main()
"""


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_killed_in_mid_transaction_again_and_again(
    log: Logged, tmp_path: Path, postgres: PostgresServer, engine: str
) -> None:
    target = (
        postgres.dsn(postgres.create()) if engine == "postgres" else f"sqlite:///{tmp_path / 'copy' / 'gateway.db'}"
    )
    log.world.store.close()
    codes = []
    for _ in range(60):
        words = [sys.executable, "-c", _DYING, "12", "migrate", "--from", log.url, "--to", target]
        done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)
        codes.append(done.returncode)
        if done.returncode != -9:
            break
    assert codes[-1] == 0, done.stderr
    assert len(codes) > 3
    assert "copied and compared, after an interruption" in done.stdout
    assert rows(target) == rows(log.url)


def rows(url: str) -> dict[str, int]:
    with closing(open_readable(url)) as store:
        return {table: store.row(f"SELECT count(*) FROM {table}")[0] for table in KEYS}
