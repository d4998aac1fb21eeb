"""Where events go: each sink keeps what it has acknowledged, and says what it has not."""

from __future__ import annotations

import errno
import io
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import FakeClock
from gateway.export.outbox.events import Event
from gateway.export.outbox.pump import run
from gateway.export.outbox.sinks import SinkError, SinkUnavailable, Stopped, shown
from gateway.export.outbox.sinks.folder import Folder
from gateway.export.outbox.sinks.http import Form, Http
from gateway.export.outbox.sinks.pipe import Pipe
from gateway.export.outbox.sinks.retrying import Retrying
from tests.unit.export.logs import Logged
from tests.unit.export.outboxes import Waits, outbox
from tests.unit.export.receiver import Answer, Receiver

BATCH = tuple(Event(f"outcome/{n}/brier/", json.dumps({"id": f"outcome/{n}/brier/"}).encode()) for n in range(3))
UNAVAILABLE: list[Answer] = [500, 502, 503, 504, 429, 408, 425, "leave", "cut", "shut"]


def http(receiver: Receiver, waits: Waits, *, form: Form = "ndjson", patience: float | None = None, **how: Any) -> Http:
    told = how.pop("told", [])
    return Http(receiver.url, form, Retrying(waits.clock, waits, patience, told.append, lambda: 0.5), **how)


def post(answers: list[Answer], **how: Any) -> tuple[Receiver, Waits]:
    """One batch to a receiver that answers so."""
    waits = how.pop("waits", None) or Waits(FakeClock())
    with Receiver(answers) as receiver:
        sink = http(receiver, waits, **how)
        try:
            sink.send(BATCH)
        finally:
            sink.close()
    return receiver, waits


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("https://me:secret@lake.example:8443/events?token=secret#secret", "https://lake.example:8443/events"),
        ("nats://secret@[::1]:4222/a/b", "nats://[::1]:4222/a/b"),
        ("file:/var/spool/events", "file:/var/spool/events"),
        ("file:events", f"file:{Path('events').absolute()}"),
        ("-", "-"),
    ],
)
def test_a_target_is_told_without_its_secrets(to: str, said: str) -> None:
    assert shown(to) == said


@pytest.mark.parametrize(
    ("form", "kind"), [("ndjson", "application/x-ndjson"), ("cloudevents", "application/cloudevents-batch+json")]
)
def test_a_batch_is_posted_with_its_key(form: Form, kind: str) -> None:
    receiver, waits = post([], form=form)
    (one,) = receiver.kept
    assert one.headers["content-type"] == kind
    assert [event["id"] for event in one.events] == [event.id for event in BATCH]
    (same,) = post([], form=form)[0].kept
    assert one.headers["idempotency-key"] == same.headers["idempotency-key"]
    assert len(one.headers["idempotency-key"]) == 34
    assert waits.waits == []


@pytest.mark.parametrize("answer", UNAVAILABLE)
def test_who_is_not_there_is_asked_again_with_the_same_key(answer: Answer) -> None:
    told: list[str] = []
    receiver, waits = post([answer, answer, 201], told=told)
    assert len(receiver.kept) == 1
    assert len({one.headers["idempotency-key"] for one in receiver.taken}) == 1
    assert len({one.body for one in receiver.taken}) == 1
    assert waits.waits == [0.375, 0.75]
    assert len(told) == 2
    assert "again in 0.4 s" in told[0]


def test_pauses_grow_up_to_a_minute() -> None:
    _, waits = post([503] * 12)
    assert waits.waits[:4] == [0.375, 0.75, 1.5, 3.0]
    assert waits.waits[-1] == 45.0


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_nobody_comes_back_before_retry_after(form: str) -> None:
    waits = Waits(FakeClock())
    at = datetime.fromtimestamp(waits.clock.wall_us() / 1e6, UTC) + timedelta(seconds=120)
    asked = "120" if form == "seconds" else format_datetime(at, usegmt=True)
    post([(429, {"retry-after": asked}), (503, {"retry-after": "0"}), (503, {"retry-after": "soon"})], waits=waits)
    assert waits.waits[0] == pytest.approx(120, abs=1)
    assert waits.waits[1:] == [0.75, 1.5]  # asked for nothing, or for nothing that can be read


def test_a_retry_after_beyond_reason_is_an_hour() -> None:
    assert post([(503, {"retry-after": "99999999999999"})])[1].waits == [3600.0]


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 301, 304])
def test_a_refusal_ends_it_loudly(status: int) -> None:
    waits = Waits(FakeClock())
    with pytest.raises(SinkError, match=f"refused with {status}"):
        post([status], waits=waits)
    assert waits.waits == []


def test_patience_ends_where_nobody_follows() -> None:
    waits = Waits(FakeClock())
    with pytest.raises(SinkUnavailable, match="answered 503; given up after 8 tries"):
        post([503] * 100, waits=waits, patience=60.0)
    assert sum(waits.waits) <= 60.0


def test_nobody_listens() -> None:
    with Receiver() as receiver:
        gone = receiver.url
    waits = Waits(FakeClock())
    sink = Http(gone, "ndjson", Retrying(waits.clock, waits, 5.0, jitter=lambda: 0.5))
    with pytest.raises(SinkUnavailable, match=r"Connection refused"):
        sink.send(BATCH)
    sink.close()


def test_a_stop_ends_the_waiting_and_nothing_was_acknowledged() -> None:
    with pytest.raises(Stopped):
        post([503, 503, 503], waits=Waits(FakeClock(), most=2))


def test_a_token_is_read_anew_for_every_try(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("one\n")
    waits = Waits(FakeClock())
    waits.meanwhile = lambda: (token.write_text("two"), None)[1]
    receiver, _ = post([503], token_file=token, waits=waits)
    assert [one.headers["authorization"] for one in receiver.taken] == ["Bearer one", "Bearer two"]
    token.unlink()
    with pytest.raises(SinkError, match="token: No such file"):
        post([], token_file=token)
    token.write_text("no\ntoken")
    with pytest.raises(SinkError, match="Illegal header value"):
        post([], token_file=token)


def test_a_password_in_the_url_is_sent_and_not_told() -> None:
    with Receiver([400]) as receiver:
        waits = Waits(FakeClock())
        url = receiver.url.replace("http://", "http://me:secret@") + "?key=hidden"
        sink = Http(url, "ndjson", Retrying(waits.clock, waits, None))
        with pytest.raises(SinkError) as caught:
            sink.send(BATCH)
        sink.close()
    assert receiver.taken[0].headers["authorization"].startswith("Basic ")
    assert "secret" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_all_of_a_log_through_a_bad_receiver(sqlite_log: Logged, tmp_path: Path) -> None:
    """Whatever it does in turn, at the end it has everything, in order, and knows repeats by their ids."""
    answers: list[Answer] = [one for answer in UNAVAILABLE for one in (answer, 200, answer)]
    waits = Waits(FakeClock())
    with Receiver(answers) as receiver:
        sink = http(receiver, waits)
        with outbox(sqlite_log, tmp_path / "s", sink, waits=waits, most=20) as parts:
            run(parts, follow=False)
        sink.close()
    kept = [event["id"] for one in receiver.kept for event in one.events]
    assert len(kept) == len(set(kept))
    expected = sum(
        sqlite_log.rows(f"SELECT count(*) FROM {name}")[0][0] for name in ("assignment", "outcome", "ledger")
    )
    assert len(kept) == expected
    assert {event["id"] for event in receiver.events} == set(kept)  # what it got before it failed
    assert len(receiver.events) > len(kept)
    keys = [one.headers["idempotency-key"] for one in receiver.kept]
    assert len(keys) == len(set(keys))


# ------------------------------------------------------------------ files


def test_a_file_gets_its_name_when_it_is_large_enough(tmp_path: Path) -> None:
    clock = FakeClock()
    sink = Folder(tmp_path, "lake", clock, most=100)
    size = sum(len(event.text) + 1 for event in BATCH)
    assert size < 100 < 2 * size
    sink.send(BATCH)
    assert list(tmp_path.glob("*.ndjson")) == []
    sink.send(BATCH)
    (whole,) = tmp_path.glob("*.ndjson")
    assert [json.loads(line)["id"] for line in whole.read_text().splitlines()] == [event.id for event in BATCH] * 2
    sink.send(BATCH)  # at the same time by the clock: another name all the same
    sink.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"lake-{clock.wall_us()}.ndjson", f"lake-{clock.wall_us() + 1}.ndjson"]


def test_a_file_gets_its_name_when_it_is_old_enough(tmp_path: Path) -> None:
    clock = FakeClock()
    sink = Folder(tmp_path, "lake", clock, age=300.0)
    sink.send(BATCH)
    clock.advance(299.0)
    sink.idle()
    assert list(tmp_path.glob("*.ndjson")) == []
    clock.advance(1.0)
    sink.idle()
    assert len(list(tmp_path.glob("*.ndjson"))) == 1
    sink.close()
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("tail", [b"", b'{"id": "torn', b"x" * 200_000])
def test_what_a_killed_process_left_is_mended(tmp_path: Path, tail: bytes) -> None:
    whole = b"".join(event.text + b"\n" for event in BATCH)
    (tmp_path / ".lake-1.ndjson.part").write_bytes(whole + tail)
    (tmp_path / ".lake-2.ndjson.part").write_bytes(tail)
    (tmp_path / ".other-1.ndjson.part").write_bytes(tail)
    Folder(tmp_path, "lake", FakeClock()).close()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "lake-1.ndjson": whole,
        ".other-1.ndjson.part": tail,
    }


def test_a_disk_that_is_full_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = Folder(tmp_path, "lake", FakeClock())
    sink.send(BATCH)

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SinkError, match="No space left"):
        sink.send(BATCH)
    monkeypatch.undo()
    sink.close()
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match="File exists"):
        Folder(tmp_path / "file", "lake", FakeClock())


# ------------------------------------------------------------------ pipes


def test_a_pipe_gets_lines() -> None:
    out = io.BytesIO()
    sink = Pipe(out)
    sink.send(BATCH)
    sink.idle()
    sink.close()
    assert [json.loads(line)["id"] for line in out.getvalue().splitlines()] == [event.id for event in BATCH]


def test_nobody_reads_the_pipe() -> None:
    with open("/dev/full", "wb", buffering=0) as out, pytest.raises(SinkError, match="stdout: No space left"):
        Pipe(out).send(BATCH)
