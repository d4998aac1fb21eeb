from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.breaker import Breaker, State

PAUSE = 5.0


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(3):
        assert breaker.allow(now)
        breaker.failure(now)
    assert state(breaker) == "open"
    return breaker


def state(breaker: Breaker) -> State:
    """Read anew: mypy would take it for unchanged since the last comparison."""
    return breaker.state


def test_two_failures_and_a_success_leave_it_closed() -> None:
    breaker = Breaker()
    for _ in range(10):
        for _ in range(2):
            assert breaker.allow(0)
            breaker.failure(0)
        assert breaker.allow(0)
        breaker.success()
    assert state(breaker) == "closed"


def test_third_failure_in_a_row_opens_for_the_pause() -> None:
    breaker = opened(now=100)
    assert not breaker.allow(100)
    assert not breaker.allow(104.999)
    assert state(breaker) == "open"
    assert breaker.allow(105)


def test_one_probe_at_a_time() -> None:
    breaker = opened()
    assert breaker.allow(5)
    assert state(breaker) == "half_open"
    assert not breaker.allow(5)
    assert not breaker.allow(500)


def test_probe_that_succeeds_closes() -> None:
    breaker = opened()
    assert breaker.allow(5)
    breaker.success()
    assert state(breaker) == "closed"
    assert breaker.allow(5)
    assert breaker.allow(5)


def test_failures_from_before_do_not_count_after_closing() -> None:
    breaker = opened()
    assert breaker.allow(5)
    breaker.success()
    for _ in range(2):
        assert breaker.allow(5)
        breaker.failure(5)
    assert state(breaker) == "closed"


def test_probe_that_fails_opens_for_another_pause() -> None:
    breaker = opened()
    assert breaker.allow(7)
    breaker.failure(8)
    assert state(breaker) == "open"
    assert not breaker.allow(12.9)
    assert breaker.allow(13)


def test_abandoned_probe_gives_its_place_back_at_once() -> None:
    breaker = opened()
    assert breaker.allow(5)
    breaker.abandon()
    assert state(breaker) == "half_open"
    assert breaker.allow(5)
    assert not breaker.allow(5)


def test_abandoned_calls_are_no_failures() -> None:
    breaker = Breaker()
    for _ in range(10):
        assert breaker.allow(0)
        breaker.abandon()
    assert state(breaker) == "closed"


def test_calls_from_before_the_opening_that_end_late() -> None:
    """Five calls are out; three fail. The others end while it is open, or while the probe is out."""
    breaker = Breaker()
    for _ in range(6):
        assert breaker.allow(0)
    for _ in range(3):
        breaker.failure(0)
    breaker.success()  # too old to say that the backend answers again
    assert state(breaker) == "open"
    breaker.failure(4)  # does not lengthen the pause
    assert breaker.allow(5)
    breaker.failure(6)  # the last old call, or the probe: the slot stays taken until both are home
    assert not breaker.allow(60)
    assert state(breaker) == "half_open"
    breaker.failure(60)
    assert state(breaker) == "open"
    assert not breaker.allow(64)
    assert breaker.allow(65)


def test_repr() -> None:
    assert repr(opened()) == "<Breaker open, 0 failures, 0 out>"


Step = tuple[str, float, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["allow", "success", "failure", "abandon"]),
        st.floats(0, 7),
        st.integers(0, 50),
    ),
    max_size=200,
)


@given(STEPS)
def test_never_two_probes_out_and_never_stuck(steps: list[Step]) -> None:
    """Calls end in any order; each is remembered as a probe or not. Once all are home, the way is free."""
    breaker = Breaker()
    now = 0.0
    out: list[bool] = []  # is it a probe
    for action, passed, which in steps:
        now += passed
        if action == "allow":
            before = breaker.state
            if breaker.allow(now):
                out.append(before != "closed")
        elif out:
            out.pop(which % len(out))
            if action == "success":
                was = breaker.state
                breaker.success()
                assert (breaker.state == "open") == (was == "open")
                if breaker.state == "closed":
                    out = [False] * len(out)  # closed: what is out are ordinary calls
            elif action == "failure":
                breaker.failure(now)
            else:
                breaker.abandon()
        assert sum(out) <= 1
    while out:
        out.pop()
        breaker.abandon()
    assert breaker.allow(now + PAUSE)


@given(st.lists(st.booleans(), max_size=60))
def test_calls_in_turn_follow_the_rule(results: list[bool]) -> None:
    """The model: three failures in a row, then every probe decides alone."""
    breaker = Breaker()
    now, failures = 0.0, 0
    for succeeded in results:
        now += PAUSE
        assert breaker.allow(now)
        if succeeded:
            breaker.success()
        else:
            breaker.failure(now)
        failures = 0 if succeeded else failures + 1
        assert (breaker.state == "open") == (failures >= 3)
        assert breaker.allow(now) == (failures < 3)
        if failures < 3:
            breaker.abandon()
