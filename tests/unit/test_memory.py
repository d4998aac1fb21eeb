"""When memory is given back."""

from __future__ import annotations

from gateway import memory
from gateway.memory import GROWTH, Tide

MIB = 1 << 20


def test_it_is_given_back_once_it_has_grown_and_again_only_after_more_growth() -> None:
    tide = Tide()
    assert not tide.high(100 * MIB)
    assert not tide.high(100 * MIB + GROWTH)
    assert tide.high(101 * MIB + GROWTH)
    tide.ebbed(400 * MIB)  # it is in use
    assert not tide.high(400 * MIB + GROWTH)
    assert tide.high(401 * MIB + GROWTH)


def test_what_sinks_by_itself_is_measured_from_there() -> None:
    tide = Tide()
    tide.high(500 * MIB)
    assert not tide.high(100 * MIB)
    assert tide.high(300 * MIB)


def test_the_system_tells_what_a_process_holds() -> None:
    before = memory.resident()
    held = bytearray(64 * MIB)
    assert 60 * MIB < memory.resident() - before < 80 * MIB
    del held
    memory.give_back()
    assert memory.resident() - before < 8 * MIB
