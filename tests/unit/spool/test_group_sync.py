"""Group sync: nobody is acknowledged before the disk has it, all who come meanwhile share the next sync, and a failed
one is never tried again on the same file."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.clock import FakeClock
from gateway.errors import SpoolError
from gateway.events import Fact, Outcome
from gateway.files import is_locked
from gateway.spool.format import Position
from gateway.spool.reader import StreamId, read
from gateway.spool.sync import MOST, GroupSync
from gateway.spool.writer import SpoolWriter

pytestmark = pytest.mark.anyio
STREAM = StreamId(3, "outcomes")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def outcome(number: int) -> Outcome:
    return Outcome(str(number), number, number, "e", "x", "m", 0.5)


def inode(descriptor: int) -> int:
    return os.fstat(descriptor).st_ino


class Disk:
    """Stands in for the kernel's syncs: each waits until it is let go, and fails if it is told to."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.files: list[int] = []  # inodes, in the order in which their syncs began
        self.folders = 0
        self.fails = False
        self._go = threading.Semaphore(0)
        self._began = threading.Semaphore(0)
        self._fsync = os.fsync
        patch.setattr(os, "fdatasync", self._file)
        patch.setattr(os, "fsync", self._folder)

    def _file(self, descriptor: int) -> None:
        self.files.append(inode(descriptor))
        self._began.release()
        assert self._go.acquire(timeout=10)
        if self.fails:
            raise OSError(5, "Input/output error")

    def _folder(self, descriptor: int) -> None:
        self.folders += 1
        self._fsync(descriptor)

    async def began(self) -> None:
        """A sync is under way."""
        async with asyncio.timeout(5):
            while not self._began.acquire(blocking=False):
                await asyncio.sleep(0.001)

    def let_go(self, syncs: int = 1) -> None:
        self._go.release(syncs)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk(monkeypatch)
    yield disk
    disk.let_go(100)


class Rig:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = FakeClock()
        self.spool = SpoolWriter(folder, 3, "outcomes", b"i" * 16, self.clock)
        self.told: list[str] = []
        self.sync = GroupSync(self.spool, self.clock, lambda result, _: self.told.append(result), patience=5.0)

    async def keep(self, number: int) -> None:
        """As an outcome is kept: appended, then awaited, in one turn of the loop."""
        self.spool.append(outcome(number))
        await self.sync.synced()

    def start(self, number: int) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(self.keep(number))

    def segment(self, number: int) -> Path:
        return self.folder / f"00000003.outcomes.{number:06d}"

    def kept(self) -> list[Fact]:
        facts: list[Fact] = []
        position = Position()
        while True:
            batch = read(self.folder, STREAM, position)
            assert not batch.corrupt
            facts += batch.facts
            if batch.position == position:
                return facts
            position = batch.position


@pytest.fixture
async def rig(tmp_path: Path, disk: Disk) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    disk.let_go(100)
    await rig.sync.close()
    rig.spool.close()


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_nobody_is_acknowledged_before_the_disk_has_it(rig: Rig, disk: Disk) -> None:
    first = rig.start(1)
    await disk.began()
    assert rig.kept() == [outcome(1)]  # the kernel has it
    await turns()  # and the loop goes on meanwhile
    assert not first.done()
    disk.let_go()
    await first
    assert disk.files == [rig.segment(0).stat().st_ino]
    assert rig.told == ["ok"]


async def test_all_who_come_while_one_sync_is_under_way_share_the_next(rig: Rig, disk: Disk) -> None:
    first = rig.start(1)
    await disk.began()
    others = [rig.start(number) for number in range(2, 50)]
    await turns()
    disk.let_go()
    await first
    await disk.began()
    assert not any(task.done() for task in others)  # their bytes may have come after the first one began
    disk.let_go()
    await asyncio.gather(*others)
    assert len(disk.files) == 2


async def test_a_file_that_is_new_is_entered_in_its_folder_once(rig: Rig, disk: Disk) -> None:
    disk.let_go(10)
    await rig.keep(1)
    await rig.keep(2)
    assert disk.folders == 1
    rig.spool.end_segment(1)
    await rig.keep(3)
    await rig.keep(4)
    assert disk.folders == 2


async def test_a_failed_sync_is_said_to_all_who_wait_and_never_tried_again_on_that_file(rig: Rig, disk: Disk) -> None:
    disk.fails = True
    first = rig.start(1)
    await disk.began()
    others = [rig.start(2), rig.start(3)]  # whose bytes lie in the same file
    await turns()
    disk.let_go()
    for task in (first, *others):
        with pytest.raises(SpoolError, match="Input/output error"):
            await task
    assert rig.told == ["error"]
    disk.fails = False
    disk.let_go()
    await rig.keep(4)
    assert disk.files == [rig.segment(0).stat().st_ino, rig.segment(1).stat().st_ino]
    assert not is_locked(rig.segment(0))
    assert [fact.id for fact in rig.kept() if isinstance(fact, Outcome)] == ["1", "2", "3", "4"]


async def test_where_no_new_file_can_be_made_after_a_failed_sync_nothing_is_taken(
    rig: Rig, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.fails = True
    disk.let_go()
    with pytest.raises(SpoolError):
        await rig.keep(1)
    disk.fails = False

    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", refuse)
        for _ in range(2):
            with pytest.raises(SpoolError, match=r"outcomes\.000001"):
                await rig.keep(2)
        with pytest.raises(SpoolError):
            rig.spool.heartbeat()
    disk.let_go()
    await rig.keep(3)
    assert [fact.id for fact in rig.kept() if isinstance(fact, Outcome)] == ["1", "3"]


async def test_a_segment_that_ended_before_its_sync_is_synced_too(rig: Rig, disk: Disk) -> None:
    first = rig.start(1)
    await disk.began()
    second = rig.start(2)  # waits for the next sync
    await turns()
    rig.spool.end_segment(1)
    third = rig.start(3)
    disk.let_go()
    await first
    assert is_locked(rig.segment(0))  # whoever finds it unlocked may take its writer for dead
    disk.let_go(2)
    await asyncio.gather(second, third)
    old, new = rig.segment(0).stat().st_ino, rig.segment(1).stat().st_ino
    assert disk.files == [old, old, new]
    assert not is_locked(rig.segment(0))
    assert is_locked(rig.segment(1))


async def test_a_segment_that_ends_during_its_sync_is_let_go_behind_it(rig: Rig, disk: Disk) -> None:
    first = rig.start(1)
    await disk.began()
    rig.spool.end_segment(1)
    assert is_locked(rig.segment(0))
    disk.let_go()
    await first
    assert not is_locked(rig.segment(0))


async def test_a_segment_that_nobody_waits_for_is_let_go_at_once(rig: Rig, disk: Disk) -> None:
    disk.let_go()
    await rig.keep(1)
    rig.spool.append(outcome(2))
    rig.spool.end_segment(1)
    assert not is_locked(rig.segment(0))


async def test_no_descriptor_is_left_behind(rig: Rig, disk: Disk) -> None:
    before = len(os.listdir("/proc/self/fd"))
    disk.let_go(100)
    for number in range(10):
        task = rig.start(number)
        await turns(1)
        rig.spool.end_segment(1)
        await task
    disk.fails = True
    with pytest.raises(SpoolError):
        await rig.keep(11)
    rig.spool.append(outcome(12))
    assert len(os.listdir("/proc/self/fd")) == before


async def test_who_leaves_spoils_it_for_nobody(rig: Rig, disk: Disk) -> None:
    first = rig.start(1)
    await disk.began()
    left, stays = rig.start(2), rig.start(3)
    await turns()
    first.cancel()
    left.cancel()
    await turns()
    assert first.cancelled()
    disk.let_go(2)
    await stays
    assert len(disk.files) == 2


async def test_a_disk_that_does_not_answer_is_waited_for_within_bounds(tmp_path: Path, disk: Disk) -> None:
    rig = Rig(tmp_path)
    rig.sync._patience = 0.05
    with pytest.raises(SpoolError, match=r"within 0\.05 s"):
        await rig.keep(1)
    others = [rig.start(number) for number in range(MOST)]
    await turns()
    assert rig.sync.crowded  # so that nobody else appends and waits
    for task in others:
        with pytest.raises(SpoolError):
            await task
    disk.let_go(100)
    async with asyncio.timeout(5):
        while rig.sync.crowded:
            await asyncio.sleep(0.001)
    await rig.keep(2)
    await rig.sync.close()
    rig.spool.close()


async def test_closing_waits_for_a_sync_that_is_under_way(tmp_path: Path, disk: Disk) -> None:
    rig = Rig(tmp_path)
    task = rig.start(1)
    await disk.began()
    closing = asyncio.get_running_loop().create_task(rig.sync.close())
    await turns()
    assert not closing.done()
    disk.let_go()
    await closing
    await task
    rig.spool.close()


async def test_a_real_disk_takes_it(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await asyncio.gather(*(rig.keep(number) for number in range(100)))
    assert len(rig.kept()) == 100
    assert set(rig.told) == {"ok"}
    assert len(rig.told) <= 3
    await rig.sync.close()
    rig.spool.close()
