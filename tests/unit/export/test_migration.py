"""A store in another engine is the same store, whatever interrupts the move, and nobody serves from half of one."""

from __future__ import annotations

import fcntl
import math
import os
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from gateway.errors import StoreError
from gateway.events import Outcome, decision_id
from gateway.export.migration.copying import Copying
from gateway.export.migration.migrate import Migrated, NotTheSame, migrate
from gateway.export.migration.tables import KEYS, columns_of
from gateway.export.source import named, open_readable
from gateway.store.open import open_store
from gateway.store.sqlite import SqliteStore
from tests.postgres import PostgresServer
from tests.unit.export.logs import Logged, live_one_unit, make_log

Url = Callable[[], str]


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Url:
    """New databases with nothing in them, not even a schema."""
    return lambda: postgres.dsn(postgres.create())


@pytest.fixture
def sqlite_url(tmp_path: Path) -> Url:
    numbers = iter(range(100))
    return lambda: f"sqlite:///{tmp_path / f'target-{next(numbers)}' / 'gateway.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def target_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"{request.param}_url")()
    return url


@pytest.fixture
def full(log: Logged) -> Logged:
    """A log with rows in every table, and no connection that writes."""
    fill(log)
    log.world.store.close()
    return log


@pytest.fixture
def file(sqlite_log: Logged) -> Logged:
    """The same in a SQLite file."""
    fill(sqlite_log)
    sqlite_log.world.store.close()
    return sqlite_log


def fill(log: Logged) -> None:
    """Of what tests of the log leave out, a few rows each."""
    store = log.world.store
    rows = {
        "unit_outcome": (
            "experiment, bucket, unit, metric, id, at, value, happened_at",
            ("exp", -7, b"\0u", "m", "i", 5, 0.5, 0),
        ),
        "late_fact": ("decision, kind, at, body", (7, "completion", 5, '["c", 7]')),
        "revisit": ("experiment, vote, decision", ("exp", decision_id(1, 1), decision_id(1, 2))),
        "settled": (
            "experiment, ordinal, metric, value, denominator, predictions",
            ("exp", 1, "latency", math.inf, None, ""),
        ),
        "settling": ("experiment, ordinal", ("exp", 1)),
        "erasure": ("unit, endpoint, at, through, until, buckets", (b"\xff" * 16, "", 1, 2, 3, "{}")),
        "erased": ("decision, until", (decision_id(9, 9), 4)),
        "expired": ("day, at", (19_000, 5)),
        "release": ("endpoint, version, state", ("rank", 3, '{"ü": 1e-300}')),
        "quarantine": ("endpoint, artifact, experiment, at", ("rank", "d" * 64, "exp", 5)),
        "counter": ("experiment, variant, name, node, value", ("exp", "b", "late", 3, 5)),
    }
    with store.transaction():
        for table, (columns, values) in rows.items():
            store.write(f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(values))})", values)
        store.write("INSERT INTO late_fact (decision, kind, at, body) VALUES (7, 'completion', 5, '[\"c\", 7]')")


def copied(source: str, target: str, tell: Callable[[str, int], None] = lambda *_: None) -> Migrated:
    return migrate(named(source), target, tell)


def content(url: str) -> dict[str, list[str]]:
    """Everything in a store, in the columns that both engines have."""
    with closing(open_readable(url)) as store:
        return {
            table: sorted(map(repr, store.rows(f"SELECT {', '.join(quoted(columns))} FROM {table}")))
            for table, columns in columns_of(store).items()
        }


def look(url: str) -> None:
    with closing(open_readable(url)) as store:
        store.last_step()


def quoted(columns: list[str]) -> list[str]:
    return [f'"{name}"' for name in columns if name != "day"]


def test_every_row_of_every_table_is_there(full: Logged, target_url: str) -> None:
    done = copied(full.url, target_url)
    there, here = content(full.url), content(target_url)
    assert here == there
    assert all(there.values()), [name for name, rows in there.items() if not rows]
    assert {name: one.rows for name, one in done.tables.items()} == {name: len(rows) for name, rows in there.items()}
    assert (done.ledger.rows, done.resumed, done.unread) == (3, False, [1, 2])
    with closing(open_readable(target_url)) as store:
        assert store.broken_link() is None
        assert store.ledger(1)[0].hash == done.ledger.hash
        assert columns_of(store).keys() == KEYS.keys()


def test_there_and_back_again(full: Logged, target_url: str, sqlite_url: Url) -> None:
    first = copied(full.url, target_url)
    back = copied(target_url, sqlite_url())
    assert back.tables == first.tables


def test_the_gateway_goes_on_where_it_was(full: Logged, target_url: str, tmp_path: Path) -> None:
    """With the same spools, on the other store: the same evidence as one that never moved."""
    twin = make_log(tmp_path / "twin")
    fill(twin)
    copied(full.url, target_url)
    full.world.store = open_store(target_url)
    full.world.restart()
    for world in (full.world, twin.world):
        dice = random.Random(11)
        for unit in range(200, 230):
            live_one_unit(world, unit, dice)
            world.step(10.0)
        world.plan(b=0.7)
        world.whole("under another plan", True, 0.5, pi=0.7)  # another draw
        world.settle()
    assert full.world.states == twin.world.states
    assert full.world.votes == twin.world.votes
    assert full.world.report == twin.world.report
    twin.world.close()


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("copying", "verifying"):
        monkeypatch.setattr(f"gateway.export.migration.{module}.CHUNK", 25)


class Killed(BaseException):
    """The process ends here."""


class KilledAt:
    """While it copies, at the n-th sign of life."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self, what: str, number: int) -> None:
        self.left -= not what.startswith("verifying")
        if self.left == 0:
            raise Killed


@pytest.mark.parametrize("when", ["between chunks", "within a chunk"])
def test_whatever_interrupts_it_it_goes_on_where_it_was(
    full: Logged, target_url: str, small_chunks: None, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Again and again, each time a few chunks further; a row that came twice would be refused by its key."""
    killed = KilledAt(0)
    if when == "within a chunk":
        advance = Copying._advance

        def dying(self: Copying, table: str, *how: object) -> object:
            found = advance(self, table, *how)  # type: ignore[arg-type]
            killed(table, 0)
            return found

        monkeypatch.setattr(Copying, "_advance", dying)
    runs = 0
    while True:
        killed.left, runs = 5, runs + 1
        try:
            done = copied(full.url, target_url, killed if when == "between chunks" else lambda *_: None)
        except Killed:
            with pytest.raises(StoreError, match=r"no store yet|not finished"):
                look(target_url)
            continue
        break
    assert runs > 3
    assert done.resumed
    assert content(target_url) == content(full.url)


def test_killed_when_everything_is_compared_and_it_has_no_name_yet(
    file: Logged, sqlite_url: Url, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = sqlite_url()
    with monkeypatch.context() as patched:
        patched.setattr("gateway.export.migration.migrate.publish", KilledAt(1))
        with pytest.raises(Killed):
            copied(file.url, target)
    assert copied(file.url, target).resumed
    assert content(target) == content(file.url)


def test_no_gateway_gets_into_half_a_store(file: Logged, postgres_url: Url) -> None:
    target = postgres_url()
    with pytest.raises(Killed):
        copied(file.url, target, KilledAt(2))
    for read_only in (True, False):
        with closing(open_store(target, read_only=read_only)) as store, pytest.raises(StoreError, match="not finished"):
            store.last_step()
    copied(file.url, target)
    with closing(open_store(target)) as store:
        assert store.last_step() is not None


def test_a_target_that_holds_something_is_left_alone(file: Logged, sqlite_url: Url, postgres_url: Url) -> None:
    there = sqlite_url()
    copied(file.url, there)
    with pytest.raises(StoreError, match="is there already"):
        copied(file.url, there)
    target = postgres_url()
    with closing(open_store(target)) as store:
        store.add_outcomes(1, [Outcome("", 5, 7, "rank", "exp", "brier", 0.5, 5)])
    with pytest.raises(StoreError, match="not empty: it is a whole store already, with a ledger of 0 rows, head -;"):
        copied(file.url, target)
    joined = postgres_url()
    with closing(open_store(joined)) as store:
        assert not isinstance(store, SqliteStore)
        store.join("id", "node-a:8081", "keys")
    with pytest.raises(StoreError, match="is there already, and nodes have joined it"):
        copied(file.url, joined)
    with pytest.raises(StoreError, match="same store"):
        copied(file.url, file.url)


def test_what_was_copied_before_is_said_to_be_whole(full: Logged, target_url: str) -> None:
    done = copied(full.url, target_url)
    head = f"a whole store already, with a ledger of 3 rows, head {done.ledger.hash[:16]}"
    with pytest.raises(StoreError, match=f"{head}, as far as the source has come$") as caught:
        copied(full.url, target_url)
    assert "\n" not in str(caught.value)
    full.world.store = open_store(full.url)
    full.decide("hold")
    full.world.store.close()
    source = "the source is elsewhere, with a ledger of 4 rows, head [0-9a-f]{16}"
    with pytest.raises(StoreError, match=f"{head}; {source}$"):
        copied(full.url, target_url)


def test_a_source_that_went_on_between_two_runs_is_noticed(
    sqlite_log: Logged, target_url: str, small_chunks: None
) -> None:
    with pytest.raises(Killed):
        copied(sqlite_log.url, target_url, KilledAt(3))
    sqlite_log.world.whole("somebody new", True, 0.5)
    sqlite_log.world.settle()
    with pytest.raises(StoreError, match="before it went on"):
        copied(sqlite_log.url, target_url)


def test_a_source_that_goes_on_meanwhile_is_noticed(sqlite_log: Logged, target_url: str) -> None:
    once = iter([True])

    def tell(what: str, number: int) -> None:
        if what == "vote" and next(once, False):
            sqlite_log.world.whole("somebody new", True, 0.5)
            sqlite_log.world.settle()

    with pytest.raises(StoreError, match="has gone on while it was copied"):
        copied(sqlite_log.url, target_url, tell)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (
            "UPDATE outcome SET value = value + 1e-9 WHERE id = 'orphan'",
            "outcome: the same number of rows",
        ),
        ("DELETE FROM vote WHERE ordinal = 7", r"vote: (\d+) rows in the source, (\d+) in the target"),
        ("UPDATE ledger SET kind = 'hold' WHERE id = 2", "the chain breaks at row 2, and in the source at row None"),
        ("UPDATE evidence SET state = x'00' WHERE key = 'tally'", "evidence: the same number"),
    ],
)
def test_a_copy_that_differs_is_no_store(file: Logged, sqlite_url: Url, damage: str, problem: str) -> None:
    target = sqlite_url()
    hidden = Path(target.removeprefix("sqlite:///") + ".migrating")

    def tell(what: str, number: int) -> None:
        if what == "fold_step":  # the last table
            with closing(sqlite3.connect(hidden)) as connection, connection:
                assert connection.execute(damage).rowcount == 1

    with pytest.raises(NotTheSame, match=problem):
        copied(file.url, target, tell)
    assert not hidden.with_suffix("").exists()


def test_nobody_may_serve_from_the_source(full: Logged, target_url: str, tmp_path: Path) -> None:
    if full.url.startswith("sqlite"):
        lock = os.open(full.world.folder / "lock", os.O_RDWR | os.O_CREAT)
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="a gateway serves from this folder"):
            copied(full.url, target_url)
        os.close(lock)
    else:
        with closing(open_store(full.url)) as store:
            assert not isinstance(store, SqliteStore)
            store.join("id", "node-a:8081", "keys")
            with pytest.raises(StoreError, match=r"nodes serve from it: 1 \(node-a:8081\)"):
                copied(full.url, target_url)
            store.write("UPDATE node SET reported_at = reported_at - interval '2 minutes'")
    copied(full.url, target_url)


def test_nobody_may_serve_beside_the_target(file: Logged, sqlite_url: Url) -> None:
    target = sqlite_url()
    folder = Path(target.removeprefix("sqlite:///")).parent
    folder.mkdir()
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(StoreError, match="a gateway serves from this folder"):
        copied(file.url, target)
    os.close(lock)


def test_two_at_a_time_are_one_too_many(file: Logged, target_url: str) -> None:
    second: list[str] = []

    def tell(what: str, number: int) -> None:
        if what == "assignment":
            try:
                copied(file.url, target_url)
            except StoreError as error:
                second.append(str(error))

    if target_url.startswith("sqlite"):
        copied(file.url, target_url, tell)
        assert "another migration into it is running" in second[0]
    else:  # the second one goes on where the first is, and finishes; the first finds out
        with pytest.raises(StoreError):
            copied(file.url, target_url, tell)
        assert second == []
        assert content(target_url) == content(file.url)


def test_workers_beside_a_file_get_new_numbers(full: Logged, sqlite_url: Url) -> None:
    """Another node's spools are in the store, too: a worker that got such a number would be taken for a dead one."""
    target = sqlite_url()
    copied(full.url, target)
    numbers = Path(target.removeprefix("sqlite:///")).parent / "spool.next"
    assert numbers.read_text() == "3"
    other = sqlite_url()
    high = Path(other.removeprefix("sqlite:///")).parent / "spool.next"
    high.parent.mkdir()
    high.write_text("70")
    copied(full.url, other)
    assert high.read_text() == "70"


def test_every_table_has_its_key_and_none_is_forgotten(sqlite_log: Logged) -> None:
    with closing(sqlite_log.look()) as store:
        for table, key in KEYS.items():
            primary = store.rows("SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk", (table,))
            assert tuple(name for (name,) in primary) == key, table
    sqlite_log.world.store.write("CREATE TABLE of_tomorrow (id INTEGER)")
    with closing(sqlite_log.look()) as store, pytest.raises(StoreError, match="cannot migrate: of_tomorrow"):
        columns_of(store)


def test_columns_of_one_side_alone_are_refused(sqlite_log: Logged, target_url: str) -> None:
    sqlite_log.world.store.write("ALTER TABLE vote ADD COLUMN tomorrow TEXT")
    with pytest.raises(StoreError, match="columns that only one side has: tomorrow"):
        copied(sqlite_log.url, target_url)


def test_what_postgres_keeps_no_nul_of_is_the_same_all_the_same(sqlite_log: Logged, postgres_url: Url) -> None:
    world = sqlite_log.world
    world.outcome(world.assign("odd", True), 0.5, id="a\0b")
    world.settle()
    target = postgres_url()
    copied(sqlite_log.url, target)
    with closing(open_readable(target)) as store:
        assert store.rows("SELECT value FROM outcome WHERE id = ?", ("a\N{REPLACEMENT CHARACTER}b",)) == [(0.5,)]


def test_facts_lie_on_the_day_of_their_assignment(file: Logged, postgres_url: Url) -> None:
    target = postgres_url()
    copied(file.url, target)
    with closing(open_readable(target)) as store:
        for table in ("completion", "outcome", "shadow"):
            rows = store.rows(
                f"SELECT count(*), count(a.decision) FROM {table} f"
                " LEFT JOIN assignment a ON a.decision = f.decision AND a.day = f.day"
            )
            assert rows == [(rows[0][0], rows[0][0] - (table == "outcome"))]  # but the orphan
        assert len(store.rows("SELECT DISTINCT day FROM outcome")) >= 2
