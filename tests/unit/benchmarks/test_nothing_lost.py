"""What the long proofs make of their cases."""

from __future__ import annotations

from typing import Any

from benchmarks.nothing_lost import CLUSTER, KILLS, OUTAGE


def _case(**more: Any) -> dict[str, Any]:
    usual = {"problems": {}, "answered": 1000, "acknowledged": 700, "uncompleted": 0, "failed": {}, "catch_up_s": 0.2}
    return usual | {"kills": {"worker": 30, "control": 15, "everybody": 5}} | more


def _missed(goals: Any) -> list[str]:
    return [one.what for one in goals if not one.passed]


def test_enough_kills_without_a_loss_are_all_that_is_asked() -> None:
    assert _missed(KILLS.goals({f"{n}": _case() for n in range(4)})) == []
    assert _missed(KILLS.goals({"0": _case()})) == ["kill -9 of a process, or of all of a node at once"]


def test_every_loss_is_counted_over_all_runs() -> None:
    lost = _case(problems={"answered, and not in the store": [3, 1, 2, 3], "the file is damaged": ["page 7"]})
    goals = list(KILLS.goals({"0": _case(), "1": lost, "2": lost, "3": _case()}))
    assert [one.value for one in goals if "inferences" in one.what] == [6]
    assert len(_missed(goals)) == 2


def test_only_a_killed_worker_may_leave_an_answer_without_completion() -> None:
    assert _missed(KILLS.goals({f"{n}": _case(uncompleted=40) for n in range(4)})) == []
    assert _missed(KILLS.goals({f"{n}": _case(uncompleted=41) for n in range(4)}))[0].startswith("answers without")


def test_an_outage_that_was_not_possible_here_is_left_out() -> None:
    goals = list(OUTAGE.goals({"locked, 30 s": _case(), "full, 20 s": {"skipped": "not root"}}))
    assert _missed(goals) == []
    assert not any("full" in one.what for one in goals)


def test_requests_may_fail_only_where_a_node_was_killed() -> None:
    failed = {"ask: ConnectionResetError": 2}
    away, paused = {"fast": {"catch_up_s": 3.0}}, {"decisions": ["rollback"], "fail_over_s": 6.0}
    killed = _case(failed=failed, fail_over_s=[5.0, 11.0])
    goals = list(CLUSTER.goals({"store stopped": _case(**away), "killed leaders": killed, "paused": _case(**paused)}))
    assert _missed(goals) == ["seconds until another node leads, the slowest"]
    goals = list(CLUSTER.goals({"store stopped": _case(failed=failed, **away), "paused": _case(**paused)}))
    assert _missed(goals) == ["requests that were not answered, but when a node was killed"]
