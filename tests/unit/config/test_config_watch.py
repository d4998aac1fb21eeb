"""How a changing file is noticed: the file is real, the time is not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from gateway.clock import FakeClock
from gateway.config.load import load
from gateway.config.watch import JUDGE_AGAIN, REMOVAL_DELAY, Accepted, Change, ConfigWatcher, Refused, Restored

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Watch:
    """A watcher that is polled every half second of a clock that stands still otherwise.

    What it accepts is `taken` at once, unless a test says that something is in the way.
    """

    taken = True

    def __init__(self, path: Path) -> None:
        self.clock = FakeClock()
        self.watcher = ConfigWatcher(path, load(path), self.clock)

    def polls(self, count: int) -> list[Change]:
        changes = []
        for _ in range(count):
            changes.append(change := self.watcher.poll())
            if isinstance(change, Accepted) and self.taken:
                self.watcher.taken(change.loaded)
            self.clock.advance(0.5)
        return [change for change in changes if change is not None]


@pytest.fixture
def watch(path: Path, valid: str) -> Watch:
    path.write_text(valid)
    return Watch(path)


def edition(valid: str, number: int) -> str:
    """The config with another split."""
    return valid.replace("a: 80%", f"a: {80 - number}%").replace("b: 20%", f"b: {20 + number}%")


def split(change: Change) -> int:
    assert isinstance(change, Accepted)
    traffic = change.loaded.config.endpoints["search-rank"].traffic
    assert traffic is not None
    return int(traffic["b"] * 100) - 20


def test_nothing_happens_to_an_unchanged_file(watch: Watch, path: Path) -> None:
    assert watch.polls(5) == []
    path.touch()
    assert watch.polls(5) == []


def test_an_edit_is_taken_when_it_reads_equal_twice(watch: Watch, path: Path, valid: str) -> None:
    path.write_text(edition(valid, 1))
    assert watch.polls(1) == []
    (change,) = watch.polls(1)
    assert split(change) == 1
    assert isinstance(change, Accepted)
    assert change.loaded.text == path.read_bytes()
    assert watch.polls(5) == []


def test_a_file_that_is_being_written_is_not_taken(watch: Watch, path: Path, valid: str) -> None:
    """Every other prefix of a config is a config."""
    text = edition(valid, 2)
    lines = text.splitlines(keepends=True)
    for end in range(1, len(lines)):
        path.write_text("".join(lines[:end]))
        assert watch.polls(1) == []
    path.write_text(text)
    assert [split(change) for change in watch.polls(3)] == [2]


def test_a_writer_that_halts_halfway_is_refused_and_then_taken(watch: Watch, path: Path, valid: str) -> None:
    text = edition(valid, 3)
    path.write_text(text[: len(text) // 2])
    (change,) = watch.polls(5)
    assert isinstance(change, Refused)
    path.write_text(text)
    assert [split(change) for change in watch.polls(5)] == [3]


@pytest.mark.parametrize("number", [4, 5])
def test_a_file_renamed_over_is_taken(watch: Watch, path: Path, valid: str, number: int) -> None:
    for step in range(1, number):
        other = path.with_suffix(".new")
        other.write_text(edition(valid, step))
        other.replace(path)
        assert [split(change) for change in watch.polls(3)] == [step]


def test_every_turn_of_a_symbolic_link_is_taken_once_and_in_order(tmp_path: Path, path: Path, valid: str) -> None:
    """As Kubernetes mounts a ConfigMap: file -> ..data/file, ..data -> a folder of each version."""
    for number in range(21):
        folder = tmp_path / f"..{number}"
        folder.mkdir()
        (folder / path.name).write_text(edition(valid, number))
    data = tmp_path / "..data"
    data.symlink_to("..0")
    path.symlink_to("..data/gateway.yaml")
    watch = Watch(path)
    taken = []
    for number in range(1, 21):
        turned = tmp_path / "..turned"
        turned.symlink_to(f"..{number}")
        os.replace(turned, data)
        taken += [split(change) for change in watch.polls(3)]
    assert taken == list(range(1, 21))


def test_a_deleted_file_is_reported_once_and_its_return_too(watch: Watch, path: Path, valid: str) -> None:
    path.unlink()
    (change,) = watch.polls(6)
    assert isinstance(change, Refused)
    assert change.digest == ""
    assert str(change.error) == f"{path}: cannot be read: No such file or directory"
    path.write_text(valid)
    (back,) = watch.polls(6)
    assert isinstance(back, Restored)


def test_a_file_that_is_gone_for_a_moment_was_not_gone(watch: Watch, path: Path, valid: str) -> None:
    path.unlink()
    assert watch.polls(1) == []
    path.write_text(valid)
    assert watch.polls(4) == []


def test_a_file_that_returns_changed_is_taken(watch: Watch, path: Path, valid: str) -> None:
    path.unlink()
    watch.polls(3)
    path.write_text(edition(valid, 6))
    assert [split(change) for change in watch.polls(4)] == [6]
    assert watch.polls(4) == []


def test_something_else_in_the_place_of_the_file_is_refused(watch: Watch, path: Path) -> None:
    path.unlink()
    path.mkdir()
    (change,) = watch.polls(4)
    assert isinstance(change, Refused)
    assert "Is a directory" in str(change.error)


def test_a_refusal_is_told_once_and_its_end_too(watch: Watch, path: Path, valid: str) -> None:
    path.write_text(valid.replace("a: 80%", "a: 81%"))
    (change,) = watch.polls(6)
    assert isinstance(change, Refused)
    assert "found 101%" in str(change.error)
    path.write_text(valid)
    (back,) = watch.polls(6)
    assert back == Restored(load(path).digest)
    assert watch.polls(3) == []


def test_a_refusal_is_told_again_only_after_another(watch: Watch, path: Path, valid: str) -> None:
    broken, worse = valid.replace("a: 80%", "a: 81%"), valid.replace("a: 80%", "a: 82%")
    path.write_text(broken)
    assert len(watch.polls(3)) == 1
    path.write_text(worse)
    watch.polls(1)
    path.write_text(broken)
    assert watch.polls(3) == []
    path.write_text(worse)
    assert len(watch.polls(3)) == 1
    path.write_text(broken)
    assert len(watch.polls(3)) == 1


def test_a_good_file_ends_a_refusal(watch: Watch, path: Path, valid: str) -> None:
    path.write_text("version: 1\n")
    assert len(watch.polls(3)) == 1
    path.write_text(edition(valid, 7))
    assert [split(change) for change in watch.polls(3)] == [7]
    assert watch.polls(3) == []


def test_a_file_refused_for_a_model_that_is_missing_is_judged_again(watch: Watch, path: Path, valid: str) -> None:
    path.write_text(valid.replace("boosted.onnx", "late.onnx"))
    assert [type(change) for change in watch.polls(4)] == [Refused]
    (path.parent / "models/late.onnx").touch()
    watch.clock.advance(JUDGE_AGAIN)
    assert [type(change) for change in watch.polls(3)] == [Accepted]


def test_a_file_with_a_slip_of_its_own_is_judged_once(watch: Watch, path: Path, valid: str) -> None:
    path.write_text(valid.replace("a: 80%", "a: 81%").replace("boosted.onnx", "late.onnx"))
    assert [type(change) for change in watch.polls(4)] == [Refused]
    watch.clock.advance(JUDGE_AGAIN)
    assert watch.polls(3) == []


def test_what_was_accepted_and_not_taken_is_not_in_use(watch: Watch, path: Path, valid: str) -> None:
    watch.taken = False
    path.write_text(edition(valid, 9))
    assert [split(change) for change in watch.polls(6)] == [9]
    path.write_text("version: 1\n")
    assert [type(change) for change in watch.polls(3)] == [Refused]
    path.write_text(edition(valid, 9))
    assert [split(change) for change in watch.polls(3)] == [9], "the config in use is another"
    path.write_text(valid)
    assert [type(change) for change in watch.polls(3)] == [Restored]


def test_what_somebody_stands_behind_is_judged_at_once(watch: Watch, path: Path, valid: str) -> None:
    path.write_text(valid[: valid.index("  flight-delay:")])
    change = watch.watcher.judge()
    assert isinstance(change, Accepted)
    assert watch.polls(6) == [], "and told once"
    watch.watcher.taken(change.loaded)
    path.write_text(valid)
    assert [type(change) for change in watch.polls(3)] == [Accepted]
    path.unlink()
    assert isinstance(watch.watcher.judge(), Refused)


REMOVALS: list[Callable[[str], str]] = [
    lambda text: text[: text.index("  flight-delay:")],
    lambda text: text[: text.index("      b:\n")] + text[text.index("  flight-delay:") :],
    lambda text: text.replace("      late:", "      later:"),
    lambda text: text.replace("id: boosted-vs-logistic", "id: again"),
]


@pytest.mark.parametrize("remove", REMOVALS, ids=["endpoint", "variant", "metric", "experiment"])
def test_what_takes_something_away_must_stand_longer(
    watch: Watch, path: Path, valid: str, remove: Callable[[str], str]
) -> None:
    path.write_text(remove(valid))
    assert watch.polls(2) == []
    started = watch.clock.monotonic() - 0.5
    taken: list[Change] = []
    while not taken:
        taken = watch.polls(1)
    assert isinstance(taken[0], Accepted)
    assert watch.clock.monotonic() - 0.5 - started == REMOVAL_DELAY


def test_a_removal_that_is_taken_back_in_time_never_was(watch: Watch, path: Path, valid: str) -> None:
    path.write_text(valid[: valid.index("  flight-delay:")])
    assert watch.polls(4) == []
    path.write_text(valid)
    assert watch.polls(6) == []


def test_an_edit_during_the_delay_starts_it_anew(watch: Watch, path: Path, valid: str) -> None:
    short = valid[: valid.index("  flight-delay:")]
    path.write_text(short)
    assert watch.polls(5) == []
    path.write_text(edition(short, 8))
    assert watch.polls(5) == []
    assert [split(change) for change in watch.polls(4)] == [8]


def test_a_removal_during_a_refusal_still_waits(watch: Watch, path: Path, valid: str) -> None:
    path.write_text("version: 1\n")
    assert [type(change) for change in watch.polls(3)] == [Refused]
    path.write_text(valid[: valid.index("  flight-delay:")])
    assert watch.polls(5) == []
    assert [type(change) for change in watch.polls(4)] == [Accepted]
