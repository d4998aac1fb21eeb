"""Servers under test are seen as trees of processes, and leave nothing behind."""

import sys
from pathlib import Path

import pytest

from benchmarks.processes import BenchmarkError, running

BUSY_PARENT = """
import signal, subprocess, sys
child = "import signal; sum(range(10**7)); open('done', 'w'); signal.pause()"
subprocess.Popen([sys.executable, "-c", child])
signal.pause()
"""


def runs(pid: int) -> bool:
    """Whether there is more of a process than an entry that nobody waited for."""
    command = Path(f"/proc/{pid}/cmdline")
    return command.exists() and command.read_bytes() != b""


def test_the_time_of_a_child_is_its_servers_and_both_are_stopped(tmp_path: Path) -> None:
    with running("parent", [sys.executable, "-c", BUSY_PARENT], tmp_path, (tmp_path / "done").exists) as tree:
        family = tree.pids()
        assert len(family) == 2
        assert tree.cpu_us()["server"] > 50_000  # adding up ten million numbers takes longer
        assert tree.rss_mb()["server"] > 5
    assert not [pid for pid in family if runs(pid)]


def test_a_server_that_ends_at_once_is_told_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such model')"]
    with pytest.raises(BenchmarkError, match=r"quitter ended with 1:\nno such model"):  # noqa: SIM117
        with running("quitter", command, tmp_path, lambda: False):
            pass
