"""kill -9 of a writer in mid-stream: whatever `append` returned for is present exactly once."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.events import Outcome
from gateway.spool.format import Position
from gateway.spool.reader import StreamId, read

WRITER = """
import os, sys
from pathlib import Path
from gateway.clock import SystemClock
from gateway.events import Outcome
from gateway.spool.writer import SpoolWriter

writer = SpoolWriter(Path(sys.argv[1]), 1, "outcomes", b"i" * 16, SystemClock(), segment_bytes=100_000)
number = 0
while True:
    writer.append(Outcome(str(number), number, number, "endpoint", "experiment", "metric", 0.5))
    os.write(1, b"%d\\n" % number)  # the acknowledgement: after append, before the next
    number += 1
"""
STREAM = StreamId(1, "outcomes")


@pytest.mark.parametrize("acknowledged_before_the_kill", [1, 100, 3000, 10_000])
def test_every_acknowledged_fact_is_there_once(tmp_path: Path, acknowledged_before_the_kill: int) -> None:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    acknowledged = [int(process.stdout.readline()) for _ in range(acknowledged_before_the_kill)]
    position, ids, torn, finished = Position(), list[str](), 0, False

    def take() -> None:
        nonlocal position, torn, finished
        batch = read(tmp_path, STREAM, position)
        assert not batch.corrupt
        ids.extend(fact.id for fact in batch.facts if isinstance(fact, Outcome))
        position, finished = batch.position, batch.finished
        torn += batch.torn

    take()  # while it is being written
    assert not finished
    process.send_signal(signal.SIGKILL)
    acknowledged += [int(line) for line in process.stdout.read().splitlines()]
    process.stdout.close()
    process.wait()
    while not finished:
        take()
    # One more than was acknowledged can be there: killed between the append and the acknowledgement.
    assert ids == [str(number) for number in range(len(ids))]
    assert len(ids) - len(acknowledged) in (0, 1)
    assert torn <= 1
