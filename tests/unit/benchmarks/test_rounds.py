"""Alternating rounds: who is measured when, and what is made of the figures."""

from functools import partial

import pytest

from benchmarks.rounds import Rounds
from benchmarks.stats_common import Measured


def rounds_of(ours: list[float], theirs: list[float]) -> Rounds:
    rounds = Rounds("test", {}, kept=False)
    one, other = iter(ours), iter(theirs)
    rounds.run({"ours": lambda: {"cpu_us": next(one)}, "theirs": lambda: {"cpu_us": next(other)}}, len(ours))
    return rounds


def test_every_round_begins_with_another_subject() -> None:
    order: list[str] = []

    def measure(name: str) -> dict[str, float]:
        order.append(name)
        return {"cpu_us": 1.0}

    Rounds("test", {}, kept=False).run({name: partial(measure, name) for name in "abc"}, 3)
    assert "".join(order) == "abcbcacab"


def test_a_ratio_is_taken_inside_each_round() -> None:
    # The machine is twice as slow in the second round and four times in the third: the ratio does not notice.
    rounds = rounds_of([10.0, 20.0, 40.0], [5.0, 10.0, 20.0])
    assert rounds.ratio("ours", "cpu_us", "theirs") == 2.0


def test_the_summary_has_median_and_range() -> None:
    rounds = rounds_of([12.0, 10.0, 99.0], [1.0, 1.0, 1.0])
    assert rounds.summary()["ours"] == {"cpu_us": {"median": 12.0, "low": 10.0, "high": 99.0}}


def test_missed_goals_are_counted_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    rounds = rounds_of([1.0], [1.0])
    goals = [Measured("test", "as cheap as theirs", 1.0, 1.0, 1), Measured("test", "twice as fast", 1.0, 2.0, 1, True)]
    assert rounds.finish(goals) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[-2:] == ["met    as cheap as theirs: 1 (limit <= 1)", "MISSED twice as fast: 1 (limit >= 2)"]
