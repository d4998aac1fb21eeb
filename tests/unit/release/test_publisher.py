"""The plan file: one revision for one content, never an old one again, whatever is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.clock import FakeClock
from gateway.config.load import LoadedConfig
from gateway.errors import StoreError
from gateway.plan import decode
from gateway.release.artifacts import Artifacts
from gateway.release.keys import Keys, load_or_create
from gateway.release.publish import Publisher
from gateway.release.reconcile import reconcile
from gateway.store.sqlite import SqliteStore
from tests.unit.release.configs import fixed, loaded


class Desk:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "plan.json"
        self.keys: Keys = load_or_create(folder / "keys.json")
        self.store = SqliteStore(folder / "gateway.db")
        self.restart()

    def restart(self) -> None:
        self.publisher = Publisher(self.path, self.store, self.keys, FakeClock())

    def publish(self, share: int, step: int = 0) -> int:
        config: LoadedConfig = loaded(self.folder, rank=fixed(a=f"{100 - share}%", b=f"{share}%"))
        states = reconcile("f", config.config, {}, {}, Artifacts(), lambda *_: None, 0).states
        plan = self.publisher.publish(self.publisher.stage(config, Artifacts(), states), step)
        assert decode(self.path.read_bytes()) == plan
        return plan.revision

    @property
    def rows(self) -> list[int]:
        return [row[0] for row in self.store.rows("SELECT revision FROM plan ORDER BY revision")]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_the_same_content_keeps_its_revision(desk: Desk) -> None:
    assert [desk.publish(10), desk.publish(10, step=5), desk.publish(20), desk.publish(10)] == [1, 1, 2, 3]
    desk.restart()
    assert desk.publish(10) == 3
    assert desk.rows == [1, 2, 3]


def test_the_file_is_only_its_owners(desk: Desk) -> None:
    desk.publish(10)
    assert desk.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"schema": 99}'])
def test_a_lost_or_damaged_file_is_replaced_under_a_new_revision(desk: Desk, content: bytes | None) -> None:
    desk.publish(10)
    desk.path.unlink()
    if content is not None:
        desk.path.write_bytes(content)
    desk.restart()
    assert desk.publish(10) == 2


def test_a_file_deleted_under_our_hands_comes_back_as_it_was(desk: Desk) -> None:
    desk.publish(10)
    desk.path.unlink()
    assert desk.publisher.lost
    assert desk.publish(10) == 1
    assert desk.rows == [1]


def test_a_store_that_fell_back_does_not_send_workers_back_in_time(desk: Desk) -> None:
    for share in (10, 20, 30):
        desk.publish(share)
    desk.store.write("DELETE FROM plan WHERE revision > 1")
    desk.restart()
    assert desk.publish(40) == 4


def test_a_crash_between_row_and_file_uses_up_the_revision(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.publish(10)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gateway.plan.write", full)
    for _ in range(3):
        with pytest.raises(StoreError, match="No space left on device"):
            desk.publish(20)
    assert desk.rows == [1, 2], "tries do not use up revisions"
    with pytest.raises(StoreError):
        desk.publish(30)
    monkeypatch.undo()
    assert desk.publish(30) == 3
    monkeypatch.setattr("gateway.plan.write", full)
    with pytest.raises(StoreError):
        desk.publish(40)
    monkeypatch.undo()
    desk.restart()
    assert desk.publish(50) == 5


def test_keys_are_made_once(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    keys = load_or_create(path)
    assert load_or_create(path) == keys
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"damaged")
    with pytest.raises(StoreError, match="cannot be read"):
        load_or_create(path)
