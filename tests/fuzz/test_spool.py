"""Whatever happens to a spool's bytes, what lies before the damage is read, nothing else is, and reading ends."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import events
from gateway.events import Assignment, Completion, Fact, Heartbeat, Outcome, Rejection, Shadow, UnitOutcome
from gateway.spool.format import FRAME, Header, Position, encode_header, frame, whole_records
from gateway.spool.reader import Batch, StreamId, read
from tests.fuzz.mutations import edited
from tests.fuzz.profile import FUZZ, frugal

STREAM = StreamId(1, "requests")
NAMES = [f"00000001.requests.00000{segment}" for segment in range(2)]
HEADERS = [encode_header(Header(events.SCHEMA, 1, "requests", segment, b"i" * 16, 5)) for segment in range(2)]
FACTS: list[Fact] = [
    Assignment(1 << 40 | 1, 10, "e", "x", "s", "v", 0.5, 2**64 - 1, b"u" * 16, ("EWR",), 3),
    Completion(1 << 40 | 1, 11, "v", "answered", 200, 1, 2, "", 0.25),
    Shadow(1 << 40 | 1, 12, "w", 9),
    Outcome("id", 12, 1 << 40 | 1, "e", "x", "m", 0.25),
    UnitOutcome("id", 12, "e", "x", 2**64 - 1, b"u" * 16, "m", 0.25, 11),
    Rejection(13, 1 << 40 | 1, "e", "x", "value_rejected"),
    Heartbeat(14),
]
RECORDS = [frame(events.encode(fact)) for fact in FACTS]
WHOLE = HEADERS[0] + b"".join(RECORDS)
ENDS = list(accumulate([len(HEADERS[0]), *map(len, RECORDS)]))  # of the header, and of each record
FRAMES = (FRAME.pack(0, 0), FRAME.pack(2**32 - 1, 0), FRAME.pack(1 << 20, 0), *RECORDS[-2:], HEADERS[0])


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def everything(folder: Path, *segments: bytes, limit: int = 1 << 20) -> tuple[list[Fact], list[Batch]]:
    """All facts of a dead stream, and every batch; the reader has to come to an end."""
    for path in folder.iterdir():
        path.unlink()
    for name, data in zip(NAMES, segments, strict=False):
        (folder / name).write_bytes(data)
    facts: list[Fact] = []
    batches: list[Batch] = []
    position = Position()
    with frugal():
        while True:
            batch = read(folder, STREAM, position, limit=limit)
            facts += batch.facts
            batches.append(batch)
            if batch.finished or batch.corrupt:
                return facts, batches
            assert batch.position > position
            position = batch.position


def before(place: int) -> list[Fact]:
    """The facts that end before a byte."""
    return FACTS[: sum(end <= place for end in ENDS[1:])]


@FUZZ
@given(st.binary(max_size=300), st.booleans())
def test_random_bytes_hold_no_facts(folder: Path, data: bytes, behind_a_header: bool) -> None:
    facts, _ = everything(folder, HEADERS[0] + data if behind_a_header else data)
    assert facts == []


def test_a_file_cut_anywhere_gives_what_is_whole(folder: Path) -> None:
    for size in range(len(WHOLE) + 1):
        facts, batches = everything(folder, WHOLE[:size])
        assert facts == before(size)
        assert batches[-1].finished
        assert batches[-1].torn == (size not in (0, *ENDS))


def test_a_file_cut_anywhere_is_read_on_in_the_next_segment(folder: Path) -> None:
    for size in range(len(WHOLE) + 1):
        facts, _ = everything(folder, WHOLE[:size], HEADERS[1] + b"".join(RECORDS))
        assert facts == before(size) + FACTS


@FUZZ
@given(st.integers(0, len(WHOLE)), st.integers(0, 60), st.binary(max_size=12), st.integers(100, 300))
def test_zeros_are_a_torn_tail_or_damage(folder: Path, cut: int, zeros: int, behind: bytes, limit: int) -> None:
    data = WHOLE[:cut] + bytes(zeros) + behind
    facts, batches = everything(folder, data, limit=limit)
    assert facts[: len(before(cut))] == before(cut)
    assert all(fact in FACTS for fact in facts)
    if cut in ENDS and zeros >= FRAME.size:
        assert bool(batches[-1].corrupt) == bool(behind.strip(b"\0"))
        assert batches[-1].torn == (not batches[-1].corrupt)


@FUZZ
@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_a_changed_byte_ends_the_reading_where_it_lies(folder: Path, place: int, mask: int) -> None:
    damaged = bytearray(WHOLE)
    damaged[place] ^= mask
    facts, batches = everything(folder, bytes(damaged))
    assert facts == before(place)
    assert batches[-1].corrupt or batches[-1].torn


@FUZZ
@given(edited([WHOLE], FRAMES), st.integers(0, len(WHOLE)))
def test_edited_bytes_give_nothing_that_was_not_written(folder: Path, data: bytes, cut: int) -> None:
    facts, _ = everything(folder, data[:cut] if cut else data)
    assert all(fact in FACTS for fact in facts)
    sound = next((n for n, (a, b) in enumerate(zip(data, WHOLE, strict=False)) if a != b), min(len(data), len(WHOLE)))
    sound = min(sound, cut) if cut else sound
    assert facts[: len(before(sound))] == before(sound)


@FUZZ
@given(edited([WHOLE], FRAMES), st.integers(1 + max(map(len, [*RECORDS, HEADERS[0]])), 300))
def test_small_bites_give_what_one_does(folder: Path, data: bytes, limit: int) -> None:
    at_once, _ = everything(folder, data)
    bitten, _ = everything_or_stuck(folder, data, limit)
    assert bitten == (at_once if longest(data) <= limit else at_once[: len(bitten)])


def longest(data: bytes) -> int:
    """Bytes of the longest record that lies wholly within the data, by what its frame declares."""
    ends = [0]
    while len(data) >= (begin := ends[-1] + FRAME.size) and (
        end := begin + FRAME.unpack_from(data, ends[-1])[0]
    ) <= len(data):
        ends.append(end)
    return max((after - before for before, after in pairwise(ends)), default=0)


def everything_or_stuck(folder: Path, data: bytes, limit: int) -> tuple[list[Fact], Position]:
    """As `everything`; a record longer than the bite is never read, which must not be a loop of the reader's own."""
    (folder / NAMES[0]).write_bytes(data)
    facts: list[Fact] = []
    position = Position()
    while True:
        batch = read(folder, STREAM, position, limit=limit)
        facts += batch.facts
        if batch.finished or batch.corrupt or batch.position == position:
            return facts, batch.position
        position = batch.position


@FUZZ
@given(edited([b"".join(RECORDS)], FRAMES))
def test_whole_records_never_reach_beyond_the_data(data: bytes) -> None:
    with frugal():
        assert 0 <= whole_records(data) <= len(data)
