"""Whatever bytes lie in a spool, reading them is an answer and never an accident."""

from __future__ import annotations

import tempfile
from pathlib import Path
from zlib import crc32

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import events
from gateway.clock import FakeClock
from gateway.errors import SpoolError
from gateway.events import Assignment, Completion, Fact, Heartbeat, Outcome, Rejection
from gateway.spool.format import FRAME, LONGEST, Header, Position, encode_header, frame, parse_name, whole_records
from gateway.spool.reader import Batch, StreamId, discover, read
from gateway.spool.writer import SpoolWriter

STREAM = StreamId(1, "requests")
START = Position()
NAME = "00000001.requests.000000"
HEADER = encode_header(Header(events.SCHEMA, 1, "requests", 0, b"i" * 16, 5))
FACTS: list[Fact] = [
    Assignment(1 << 40 | 1, 10, "e", "x", "s", "v", 0.5, 2**64 - 1, b"u" * 16, ("EWR",), 3),
    Completion(1 << 40 | 1, 11, "v", "answered", 200, 1, 2, ""),
    Outcome("id", 12, 1 << 40 | 1, "e", "x", "m", 0.25),
    Rejection(13, 1 << 40 | 1, "e", "x", "value_rejected"),
    Heartbeat(14),
]
RECORDS = [frame(events.encode(fact)) for fact in FACTS]


def dead(directory: Path, *parts: bytes) -> Path:
    """A segment whose writer is gone."""
    path = directory / NAME
    path.write_bytes(b"".join(parts))
    return path


def test_every_kind_of_fact_survives_the_disk(tmp_path: Path) -> None:
    dead(tmp_path, HEADER, *RECORDS)
    batch = read(tmp_path, STREAM, Position())
    assert batch.facts == FACTS
    assert batch.finished
    assert (batch.torn, batch.corrupt) == (0, "")


def test_reading_goes_on_from_any_record(tmp_path: Path) -> None:
    dead(tmp_path, HEADER, *RECORDS)
    offset = len(HEADER)
    for number, record in enumerate(RECORDS):
        assert read(tmp_path, STREAM, Position(0, offset)).facts == FACTS[number:]
        offset += len(record)


def test_small_bites_give_the_same_facts(tmp_path: Path) -> None:
    path = dead(tmp_path, HEADER, *RECORDS)
    position, facts = Position(), list[Fact]()
    while True:
        batch = read(tmp_path, STREAM, position, limit=len(HEADER) + 20)
        facts += batch.facts
        if batch.finished:
            break
        assert batch.position > position
        position = batch.position
    assert facts == FACTS
    assert batch.position == Position(0, path.stat().st_size)


@pytest.mark.parametrize("cut", range(1, len(RECORDS[0])))
def test_a_torn_tail_of_the_dead_is_counted_and_skipped(tmp_path: Path, cut: int) -> None:
    dead(tmp_path, HEADER, RECORDS[1], RECORDS[0][:-cut])
    batch = read(tmp_path, STREAM, Position())
    assert (batch.facts, batch.finished, batch.torn, batch.corrupt) == ([FACTS[1]], True, 1, "")


def test_a_torn_tail_of_the_living_is_waited_for(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, 1, "requests", b"i" * 16, FakeClock())
    writer.append(FACTS[0])
    with (tmp_path / NAME).open("ab") as file:
        file.write(RECORDS[1][:-3])
        file.flush()
        early = read(tmp_path, STREAM, Position())
        assert (early.facts, early.finished, early.torn, early.corrupt) == ([FACTS[0]], False, 0, "")
        file.write(RECORDS[1][-3:])
    late = read(tmp_path, STREAM, early.position)
    assert (late.facts, late.finished) == ([FACTS[1]], False)
    writer.close()
    last = read(tmp_path, STREAM, late.position)
    assert (last.facts, last.finished) == ([], True)


@pytest.mark.parametrize("zeros", [FRAME.size, 100, 5000])
@pytest.mark.parametrize("limit", [4096, len(HEADER) + sum(map(len, RECORDS)) + FRAME.size])
def test_zeros_to_the_end_of_a_dead_file_are_a_torn_tail(tmp_path: Path, zeros: int, limit: int) -> None:
    """What a power failure leaves of bytes that never reached the disk: nothing that was acknowledged lies there."""
    dead(tmp_path, HEADER, *RECORDS, bytes(zeros))
    batch = read(tmp_path, STREAM, Position(), limit=limit)
    assert (batch.facts, batch.finished, batch.torn, batch.corrupt) == (FACTS, True, 1, "")


def test_zeros_are_passed_over_to_the_next_segment(tmp_path: Path) -> None:
    dead(tmp_path, HEADER, RECORDS[0], bytes(64))
    header = encode_header(Header(events.SCHEMA, 1, "requests", 1, b"i" * 16, 5))
    (tmp_path / "00000001.requests.000001").write_bytes(header + RECORDS[1])
    first = read(tmp_path, STREAM, Position())
    assert (first.facts, first.torn, first.position, first.finished) == ([FACTS[0]], 1, Position(1, 0), False)
    assert read(tmp_path, STREAM, first.position, first.incarnation).facts == [FACTS[1]]


@pytest.mark.parametrize("limit", [4096, len(HEADER) + len(RECORDS[0]) + 20])
def test_zeros_in_the_middle_are_damage(tmp_path: Path, limit: int) -> None:
    dead(tmp_path, HEADER, RECORDS[0], bytes(64), RECORDS[1])
    batch = read(tmp_path, STREAM, Position(), limit=limit)
    assert (batch.facts, batch.finished) == ([FACTS[0]], False)
    assert batch.corrupt.endswith(f"at byte {len(HEADER) + len(RECORDS[0])}")


def test_zeros_in_a_file_that_is_still_written_are_waited_for(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, 1, "requests", b"i" * 16, FakeClock())
    with (tmp_path / NAME).open("ab") as file:
        file.write(bytes(64))
    batch = read(tmp_path, STREAM, Position())
    assert (batch.facts, batch.finished, batch.torn, batch.corrupt) == ([], False, 0, "")
    writer.close()


def test_a_dead_file_of_no_bytes_is_one_that_never_began(tmp_path: Path) -> None:
    dead(tmp_path)
    batch = read(tmp_path, STREAM, Position())
    assert (batch.facts, batch.finished, batch.torn, batch.corrupt) == ([], True, 0, "")


def test_a_bad_middle_stops_the_stream_and_says_where(tmp_path: Path) -> None:
    damaged = bytearray(RECORDS[1])
    damaged[-1] ^= 1
    dead(tmp_path, HEADER, RECORDS[0], bytes(damaged), RECORDS[2])
    batch = read(tmp_path, STREAM, Position())
    assert batch.facts == [FACTS[0]]
    assert batch.corrupt.endswith(f"checksum mismatch at byte {len(HEADER) + len(RECORDS[0])}")
    assert not batch.finished
    assert read(tmp_path, STREAM, batch.position).corrupt == batch.corrupt


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        (frame(b"junk"), "not a spool segment"),
        (frame(msgspec.msgpack.encode(["gateway-spool", 1, 1, "\ud7ff", 0, b"", 0])), "not a spool segment"),
        (frame(b"\x97\xadgateway-spool\x01\x01\xa2\xff\xff\x00\xc4\x00\x00"), "not a spool segment"),
        (encode_header(Header(events.SCHEMA + 1, 1, "requests", 0, b"", 0)), f"schema {events.SCHEMA + 1}"),
        (encode_header(Header(events.SCHEMA, 2, "requests", 0, b"", 0)), "holds spool 2"),
        (encode_header(Header(events.SCHEMA, 1, "outcomes", 0, b"", 0)), "outcomes"),
        (encode_header(Header(events.SCHEMA, 1, "requests", 1, b"", 0)), "segment 1"),
    ],
)
def test_a_wrong_header_quarantines_the_stream(tmp_path: Path, header: bytes, complaint: str) -> None:
    dead(tmp_path, header, RECORDS[0])
    batch = read(tmp_path, STREAM, Position())
    assert complaint in batch.corrupt
    assert (batch.facts, batch.position, batch.finished) == ([], Position(), False)


def test_an_impossible_length_is_damage_at_once(tmp_path: Path) -> None:
    dead(tmp_path, HEADER, FRAME.pack(LONGEST + 1, 0))
    assert "impossible record length" in read(tmp_path, STREAM, Position()).corrupt


def test_a_record_of_an_unknown_kind_is_damage(tmp_path: Path) -> None:
    dead(tmp_path, HEADER, frame(msgspec.msgpack.encode(["z", 1])))
    assert "undecodable record" in read(tmp_path, STREAM, Position()).corrupt


@pytest.mark.parametrize("payload", [b"\x99\xa1c\x01\x02\xa2\xff\xff", b"\x9b\xa1h\x01" + b"\x91" * 3000 + b"\xc0"])
def test_what_the_decoder_itself_cannot_refuse_cleanly_is_damage_too(tmp_path: Path, payload: bytes) -> None:
    """Invalid UTF-8 and nesting beyond Python's stack come out of msgspec as other exceptions."""
    dead(tmp_path, HEADER, frame(payload))
    assert "undecodable record" in read(tmp_path, STREAM, Position()).corrupt


def test_a_segment_that_is_gone_is_said(tmp_path: Path) -> None:
    assert "is gone" in read(tmp_path, STREAM, Position(2, 0)).corrupt


def test_a_file_shorter_than_what_was_read_is_said(tmp_path: Path) -> None:
    dead(tmp_path, HEADER)
    assert "shorter" in read(tmp_path, STREAM, Position(0, len(HEADER) + 1)).corrupt


def test_a_file_that_cannot_be_read_now_may_be_readable_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead(tmp_path, HEADER, *RECORDS)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        with pytest.raises(SpoolError, match="Too many open files"):
            read(tmp_path, STREAM, Position())
    assert read(tmp_path, STREAM, Position()).facts == FACTS


def test_a_rotated_stream_is_followed_while_it_is_written(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, 1, "requests", b"i" * 16, FakeClock(), segment_bytes=200)
    position, facts = Position(), list[Fact]()
    for number in range(60):
        writer.append(Heartbeat(number))
        if number % 7 == 0:
            batch = read(tmp_path, STREAM, position)
            assert not batch.finished
            assert batch.torn == 0
            facts += batch.facts
            position = batch.position
    writer.close()
    batch = Batch(position)
    while not batch.finished:
        batch = read(tmp_path, STREAM, batch.position)
        facts += batch.facts
    assert facts == [Heartbeat(number) for number in range(60)]


def test_streams_are_found_by_name(tmp_path: Path) -> None:
    names = ["00000002.requests.000000", "00000002.requests.000001", "00000001.outcomes.000000"]
    strangers = [
        ".00000003.requests.000000.ab.new",
        "x.requests.000000",
        "00000001.other.000000",
        "00000001.requests.²",
    ]
    for name in names + strangers:
        (tmp_path / name).touch()
    assert discover(tmp_path) == [StreamId(1, "outcomes"), StreamId(2, "requests")]
    assert parse_name(tmp_path / names[1]) == (2, "requests", 1)


@given(st.lists(st.binary(max_size=20), max_size=5), st.binary(max_size=8))
def test_whole_records_are_found_in_a_prefix(payloads: list[bytes], rest: bytes) -> None:
    whole = b"".join(map(frame, payloads))
    assert whole_records(whole) == len(whole)
    following = frame(b"x" * 300)
    assert whole_records(whole + following[: len(rest)]) == len(whole)


def any_read(data: bytes, start: Position = START) -> Batch:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / NAME).write_bytes(data)
        batch = read(Path(folder), STREAM, start)
    assert start <= batch.position <= Position(0, max(len(data), start.offset))
    assert batch.finished != bool(batch.corrupt)
    return batch


@given(st.binary(max_size=300), st.integers(0, 400))
def test_any_bytes_from_any_position_are_an_answer(data: bytes, offset: int) -> None:
    any_read(data, Position(0, offset))


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_any_payload_with_a_right_checksum_is_an_answer(payloads: list[bytes]) -> None:
    any_read(HEADER + b"".join(map(frame, payloads)))


@given(st.data())
def test_any_damage_to_a_sound_file_loses_nothing_before_it(data: st.DataObject) -> None:
    sound = HEADER + b"".join(RECORDS)
    at = data.draw(st.integers(0, len(sound) - 1))
    changed = data.draw(st.integers(1, 255))
    damaged = bytearray(sound)
    damaged[at] ^= changed
    batch = any_read(bytes(damaged))
    ends = [len(HEADER) + sum(map(len, RECORDS[: n + 1])) for n in range(len(RECORDS))]
    before = sum(end <= at for end in ends)
    assert batch.facts == FACTS[:before]
    assert batch.corrupt or batch.torn


@given(st.integers(0, len(HEADER) + sum(map(len, RECORDS))))
def test_any_cut_of_a_sound_file_is_at_most_one_torn_record(length: int) -> None:
    batch = any_read((HEADER + b"".join(RECORDS))[:length])
    assert not batch.corrupt
    assert batch.facts == FACTS[: len(batch.facts)]
    assert batch.torn == int(length > batch.position.offset)


def test_the_frame_is_length_checksum_payload() -> None:
    """Little-endian, as the module says: another program can read it."""
    assert frame(b"abc") == b"\x03\0\0\0" + crc32(b"abc").to_bytes(4, "little") + b"abc"
