"""Counters of a worker are seen while it lives, and its sums stay when it is gone."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway import ends
from gateway.store.cluster import NODE_BITS
from gateway.telemetry import status_page
from gateway.telemetry.metrics import HISTOGRAM_SLOTS, LATENCY_BOUNDS_US, latency_slot
from gateway.telemetry.native import Marks, mark_of
from gateway.telemetry.page_set import PageSet
from gateway.telemetry.status_page import (
    LOAD_FAILURES,
    PAGE_BYTES,
    SLOTS,
    Series,
    StatusPage,
    Word,
    progress,
    read_page,
)

SERIES = ("hits", ("a",))


def page(directory: Path, name: str = "1") -> StatusPage:
    return StatusPage(directory / f"{name}.page")


def add(page: StatusPage, amount: int, label: str = "a") -> None:
    page.words[page.slot("hits", (label,))] += amount


def total(pages: PageSet, label: str = "a") -> int:
    return pages.totals(pages.read()).get(("hits", (label,)), (0,))[0]


def test_a_reader_sees_words_and_series(tmp_path: Path) -> None:
    mine = page(tmp_path)
    mine.words[Word.PID] = 42
    mine.words[Word.HEARTBEAT_US] = 2**63 + 1
    add(mine, 3)
    start = mine.slot("time", ("ü", 'quoted "label"\n'), 3)
    mine.words[start + 2] = 7
    reading = read_page(tmp_path / "1.page")
    assert reading is not None
    assert (reading.word(Word.PID), reading.word(Word.HEARTBEAT_US)) == (42, 2**63 + 1)
    assert reading.series == {SERIES: (3,), ("time", ("ü", 'quoted "label"\n')): (0, 0, 7)}
    mine.close()


def test_progress_is_about_one_plan(tmp_path: Path) -> None:
    mine = page(tmp_path)
    mine.words[Word.PREPARED] = progress((1 << 31) + 7, [True, False, True] + [True] * 40)
    reading = read_page(tmp_path / "1.page")
    assert reading is not None
    assert reading.progress(Word.PREPARED, (1 << 31) + 7) == 0xFFFFFFFD, "no more than 32 models fit in"
    assert reading.progress(Word.PREPARED, 7) == 0
    mine.close()


def test_progress_about_the_plans_of_a_node_among_others_has_room(tmp_path: Path) -> None:
    mine = page(tmp_path)
    revision = (5000 << NODE_BITS) + 3
    mine.words[Word.PREPARED] = progress(revision, [True])
    reading = read_page(tmp_path / "1.page")
    assert reading is not None
    assert reading.progress(Word.PREPARED, revision) == 1
    assert reading.progress(Word.PREPARED, revision + (1 << NODE_BITS)) == 0
    mine.close()


def test_why_models_could_not_be_loaded_is_forgotten_with_the_worker(tmp_path: Path) -> None:
    mine = page(tmp_path)
    why = LOAD_FAILURES, ("rank", "b", "00", "no memory")
    mine.words[mine.slot(*why)] += 1
    add(mine, 1)
    pages = PageSet(tmp_path)
    assert why in pages.read()[0].series
    mine.close()
    assert pages.totals(pages.read()) == {SERIES: (1,)}
    assert PageSet(tmp_path).totals([]) == {SERIES: (1,)}


def test_each_series_is_parsed_once_however_many_pages_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = [page(tmp_path, str(number)) for number in range(3)]
    for number, one in enumerate(mine):
        for label in range(SLOTS // 2):
            add(one, 1, f"{number} {label}")
    pages, loads, parsed = PageSet(tmp_path), json.loads, 0

    def noted(line: bytes) -> object:
        nonlocal parsed
        parsed += 1
        return loads(line)

    monkeypatch.setattr(json, "loads", noted)
    for _ in range(3):
        pages.read()
    assert parsed == 3 * SLOTS // 2
    add(mine[0], 1, "new")
    assert total(pages, "new") == 1
    assert parsed == 3 * SLOTS // 2 + 1
    for one in mine:
        one.close()


def test_a_series_keeps_its_slots(tmp_path: Path) -> None:
    mine = page(tmp_path)
    first = mine.slot("time", ("a",), 5)
    second = mine.slot("time", ("b",), 5)
    assert second == first + 5
    assert mine.slot("time", ("a",), 5) == first
    mine.close()


def test_when_slots_are_used_up_updates_are_counted_as_dropped(tmp_path: Path) -> None:
    mine = page(tmp_path)
    for number in range(SLOTS):
        mine.slot("hits", (str(number),))
    add(mine, 1, "one too many")
    add(mine, 1, str(SLOTS - 1))
    reading = read_page(tmp_path / "1.page")
    assert reading is not None
    assert reading.word(Word.OVERFLOW) == 1
    assert reading.series["hits", (str(SLOTS - 1),)] == (1,)
    assert len(reading.series) == SLOTS
    mine.close()


def test_a_histogram_without_room_touches_no_word_of_meaning(tmp_path: Path) -> None:
    mine = page(tmp_path)
    mine.words[Word.PLAN_REVISION] = 9
    for number in range(SLOTS - HISTOGRAM_SLOTS + 1):
        mine.slot("hits", (str(number),))
    start = mine.slot("time", ("a",), HISTOGRAM_SLOTS)
    for offset in range(HISTOGRAM_SLOTS):
        mine.words[start + offset] += 5
    reading = read_page(tmp_path / "1.page")
    assert reading is not None
    assert reading.word(Word.PLAN_REVISION) == 9
    assert all(reading.words[number] == 0 for number in range(4, Word.OVERFLOW))
    assert all(values == (0,) for values in reading.series.values())
    mine.close()


def test_when_the_directory_is_full_the_page_stays_readable(tmp_path: Path) -> None:
    mine = page(tmp_path)
    long = "x" * 4000
    for number in range(200):
        add(mine, 1, f"{number}{long}")
    reading = read_page(tmp_path / "1.page")
    assert reading is not None
    assert 100 < len(reading.series) < 200
    assert reading.word(Word.OVERFLOW) == 200 - len(reading.series)
    mine.close()


def test_reading_while_a_writer_adds_series_and_counts(tmp_path: Path) -> None:
    """Never a half line, never a count that falls."""
    mine = page(tmp_path)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            add(mine, 1, str(number % 500))
            add(mine, 1, "all")
            number += 1

    thread = threading.Thread(target=write)
    thread.start()
    seen: dict[status_page.Series, int] = {}
    try:
        while len(seen) < 501:
            reading = read_page(tmp_path / "1.page")
            assert reading is not None
            for series, (value,) in reading.series.items():
                assert value >= seen.get(series, 0)
                seen[series] = value
    finally:
        stop.set()
        thread.join()
        mine.close()


def test_the_living_are_summed_and_the_dead_are_kept(tmp_path: Path) -> None:
    pages = PageSet(tmp_path)
    first, second = page(tmp_path, "1"), page(tmp_path, "2")
    add(first, 3)
    add(second, 4)
    assert total(pages) == 7
    first.close()
    assert [reading.incarnation for reading in pages.read()] == ["2"]
    assert total(pages) == 7
    assert not (tmp_path / "1.page").exists()
    add(second, 1)
    assert total(pages) == 8
    second.close()
    assert total(pages) == 8
    assert total(PageSet(tmp_path)) == 8


def test_a_page_of_a_killed_process_is_folded(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from gateway.telemetry.status_page import StatusPage\n"
        "page = StatusPage(Path(sys.argv[1]) / '9.page'); page.words[page.slot('hits', ('a',))] += 5\n"
        "os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == -9
    assert total(PageSet(tmp_path)) == 5


@pytest.mark.parametrize("step", ["replace", "unlink"])
def test_an_interrupted_fold_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """The control process dies before the base is in place, or between that and the unlink of the page."""
    mine = page(tmp_path)
    add(mine, 5)
    mine.close()

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, step, die)
        with pytest.raises(KeyboardInterrupt):
            PageSet(tmp_path).read()
    assert (tmp_path / "1.page").exists()
    restarted = PageSet(tmp_path)
    assert [total(restarted) for _ in range(3)] == [5, 5, 5]
    assert not (tmp_path / "1.page").exists()
    assert total(PageSet(tmp_path)) == 5


def test_while_the_base_cannot_be_written_the_dead_are_summed_from_their_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = page(tmp_path, "1"), page(tmp_path, "2")
    add(first, 3)
    add(second, 4)
    pages = PageSet(tmp_path)
    first.close()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert [total(pages) for _ in range(3)] == [7, 7, 7]
        assert len(pages.read()) == 1
    assert (tmp_path / "1.page").exists()
    assert total(pages) == 7
    assert not (tmp_path / "1.page").exists()
    second.close()
    assert total(PageSet(tmp_path)) == 7


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def _scribble(path: Path) -> None:
    data = bytearray(path.read_bytes())
    at = 8 * (32 + SLOTS) + 8
    data[at : at + 20] = b"\xff" * 20
    path.write_bytes(data)


def _another_version(path: Path) -> None:
    path.write_bytes(b"ABGPAGE0" + path.read_bytes()[8:])


@pytest.mark.parametrize("damage", [_cut, _scribble, _another_version])
def test_a_damaged_page_spoils_nobody_elses(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    first, second = page(tmp_path, "1"), page(tmp_path, "2")
    add(first, 3)
    add(second, 4)
    first.close()
    damage(tmp_path / "1.page")
    assert total(PageSet(tmp_path)) == 4
    second.close()


@pytest.mark.parametrize("base", [b"", b"{", b"[]", b'{"folded": [], "series": [[1]]}', b"\xff"])
def test_a_damaged_base_starts_the_dead_from_zero(tmp_path: Path, base: bytes) -> None:
    (tmp_path / "base.json").write_bytes(base)
    mine = page(tmp_path)
    add(mine, 2)
    mine.close()
    assert total(PageSet(tmp_path)) == 2


def test_a_series_that_changed_its_length_starts_anew(tmp_path: Path) -> None:
    """An upgrade with other histogram buckets: the old ones cannot be added to the new."""
    (tmp_path / "base.json").write_text(json.dumps({"folded": [], "series": [["time", ["a"], [1, 2]]]}))
    mine = page(tmp_path)
    mine.words[mine.slot("time", ("a",), 3)] = 8
    pages = PageSet(tmp_path)
    assert pages.totals(pages.read())["time", ("a",)] == (8, 0, 0)
    mine.close()


def test_the_page_has_its_full_size_from_the_start(tmp_path: Path) -> None:
    """Blocks are taken when there is a disk to refuse them, not by a SIGBUS later."""
    mine = page(tmp_path)
    stat = (tmp_path / "1.page").stat()
    assert stat.st_size == PAGE_BYTES
    assert stat.st_blocks * 512 >= PAGE_BYTES
    mine.close()


@pytest.mark.parametrize(
    ("microseconds", "slot"),
    [(0, 0), (500, 0), (501, 1), (10_000_000, 12), (10_000_001, 13), (2**62, 13)],
)
def test_latency_falls_into_the_first_bucket_whose_bound_holds_it(microseconds: int, slot: int) -> None:
    assert latency_slot(microseconds) == slot
    assert slot < len(LATENCY_BOUNDS_US) + 1 < HISTOGRAM_SLOTS


# -- how workers ended


def fallen(tmp_path: Path, how: str, *, left: bool = False, models: tuple[str, ...] = ("b",)) -> PageSet:
    """A page whose worker has ended while models ran, after the supervisor told how ("" if it has not)."""
    mine = page(tmp_path)
    mine.words[Word.SPOOL] = 3
    add(mine, 1)
    marks = Marks(mine)
    for name in models:
        _, running = marks.of("rank", name, name * 64)
        running.__enter__()
    mine.words[Word.LEFT] = left
    mine.close()
    if how:
        ends.tell(tmp_path, 3, how)
    return PageSet(tmp_path)


def deaths(pages: PageSet) -> dict[Series, tuple[int, ...]]:
    return {series: values for series, values in pages.totals(pages.read()).items() if series != SERIES}


def test_a_crash_counts_once_for_the_worker_and_for_each_model_that_ran(tmp_path: Path) -> None:
    pages = fallen(tmp_path, "SIGSEGV", models=("a", "b"))
    expected: dict[Series, tuple[int, ...]] = {("gateway_worker_deaths", ("SIGSEGV",)): (1,)}
    expected |= {("gateway_model_crashes", ("rank", name)): (1,) for name in "ab"}
    for _ in range(2):
        assert deaths(pages) == expected
    (one,) = pages.fallen()
    assert (one.how, {model.variant for model in one.reading.in_native_code}) == ("SIGSEGV", {"a", "b"})
    assert pages.fallen() == []
    assert list(tmp_path.glob("*.end")) == list(tmp_path.glob("*.page")) == []
    assert deaths(PageSet(tmp_path)) == deaths(pages)


def test_a_page_of_the_dead_waits_to_be_told_how(tmp_path: Path) -> None:
    pages = fallen(tmp_path, "")
    assert total(pages) == 1
    assert pages.fallen() == []
    assert list(tmp_path.glob("*.page"))
    ends.tell(tmp_path, 3, "SIGABRT")
    assert ("gateway_worker_deaths", ("SIGABRT",)) in deaths(pages)


def test_no_model_is_blamed_for_what_the_kernel_or_a_person_killed(tmp_path: Path) -> None:
    assert deaths(fallen(tmp_path, "SIGKILL")) == {("gateway_worker_deaths", ("SIGKILL",)): (1,)}


def test_a_worker_that_left_as_told_dies_of_nothing(tmp_path: Path) -> None:
    pages = fallen(tmp_path, "unknown", left=True)
    assert deaths(pages) == {}
    assert pages.fallen() == []


def test_a_worker_that_gave_way_to_another_is_no_death(tmp_path: Path) -> None:
    assert deaths(fallen(tmp_path, ends.MEMORY, left=True)) == {("gateway_workers_recycled", ()): (1,)}


def test_a_worker_that_ended_before_it_had_a_page_counts(tmp_path: Path) -> None:
    ends.tell(tmp_path, 9, ends.EXIT)
    pages = PageSet(tmp_path)
    for _ in range(2):
        assert deaths(pages) == {("gateway_worker_deaths", ("exit",)): (1,)}


def test_while_the_base_cannot_be_written_a_crash_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = fallen(tmp_path, "SIGSEGV")

    def full(*_: Any) -> None:
        raise OSError(28, "no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("gateway.telemetry.status_page.os.fsync", full)
        for _ in range(2):
            assert total(pages) == 1
    assert len(pages.fallen()) == 1
    assert ("gateway_worker_deaths", ("SIGSEGV",)) in deaths(pages)
    assert pages.fallen() == []


def test_that_the_base_cannot_be_written_is_said_once_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "no space left on device")

    pages = PageSet(tmp_path)
    for name in ("1", "2"):
        mine = page(tmp_path, name)
        add(mine, 1)
        mine.close()
        with monkeypatch.context() as patch:
            patch.setattr("gateway.telemetry.page_set.os.fsync", full)
            for _ in range(5):
                pages.read()
        pages.read()
    assert ["cannot be written" in record.getMessage() for record in caplog.records] == [True, True]
    assert total(pages) == 2


def test_marks_outlive_their_page_and_want_no_room(tmp_path: Path) -> None:
    mine = page(tmp_path)
    _, running = Marks(mine).of("rank", "a", "00")
    for number in range(SLOTS):
        mine.slot("hits", (str(number),))
    _, homeless = Marks(mine).of("rank", "b", "00")
    with homeless:
        assert mine.words[Word.OVERFLOW] == 0
    with running:
        mine.close()


def test_loads_that_fail_do_not_lead_to_a_mark_that_somebody_has(tmp_path: Path) -> None:
    mine = page(tmp_path)
    marks = Marks(mine)
    _, serving = marks.of("rank", "a", "00")
    for digest in ("11", "22", "33", "44"):
        with serving:
            with marks.of("rank", "a", digest)[1]:
                pass
            reading = read_page(tmp_path / "1.page")
            assert reading is not None
            assert {model.mark for model in reading.in_native_code} == {mark_of("00")}
    mine.close()


def test_a_model_and_the_one_that_follows_it_have_marks_of_their_own(tmp_path: Path) -> None:
    mine = page(tmp_path)
    marks = Marks(mine)
    old, new = (marks.of("rank", "a", digest)[1] for digest in ("00", "11"))
    with old:
        with new:
            pass
        reading = read_page(tmp_path / "1.page")
        assert reading is not None
        assert {model.mark for model in reading.in_native_code} == {mark_of("00")}
    mine.close()
