"""The moves of a release as a table: from which status, by which decision, to which status and split.

A move that is not in the table cannot be made, whoever asks for it.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from msgspec.structs import replace

from gateway.assignment.ranges import origin, resize, whole, width
from gateway.errors import GatewayError
from gateway.plan import Slot
from gateway.release.state import Decision, Kind, ReleaseState, StageRule, Status


class IllegalMove(GatewayError):
    """The release is not in a state from which that decision makes sense."""

    status = 409
    reason = "illegal_move"


class Move(NamedTuple):
    to: Status
    split: str  # what happens to the challenger's share: stage, none, all, keep


MOVES: dict[tuple[Status, Kind], Move] = {
    ("running", "advance"): Move("running", "stage"),
    ("running", "promote"): Move("promoted", "all"),
    ("running", "rollback"): Move("rolled_back", "none"),
    ("running", "inconclusive"): Move("inconclusive", "none"),
    ("running", "hold"): Move("running", "keep"),
    ("running", "resume"): Move("running", "stage"),
    ("promoted", "rollback"): Move("rolled_back", "none"),
}


def move(
    state: ReleaseState,
    decision: Decision,
    stages: tuple[StageRule, ...],
    former_champion: str,
    now_us: int,
) -> ReleaseState:
    """The state after a decision. Raises IllegalMove if the table has no such move.

    `former_champion` is the champion of the experiment's definition: where a rollback goes.
    """
    step = MOVES.get((state.status, decision.kind))
    if step is None:
        raise IllegalMove(f"{state.endpoint} is {state.status}: {decision.kind} is not possible")
    if step.split == "keep":
        return replace(state, hold=decision.text)
    if decision.kind == "resume":
        return _resume(state, stages, now_us)
    if step.split == "stage":
        stage = next((rule for rule in stages if rule.name == decision.stage), None)
        if stage is None:
            raise IllegalMove(f"there is no stage {decision.stage!r}; the config has {[rule.name for rule in stages]}")
        return enter(state, stage, now_us)
    champion = state.challenger if step.split == "all" else former_champion
    return replace(state, status=step.to, champion=champion, slots=whole(champion), hold="")


def _resume(state: ReleaseState, stages: tuple[StageRule, ...], now_us: int) -> ReleaseState:
    """Take up the stage as the config has it now; if it is gone, the last one that does not raise the share."""
    if not state.hold:
        raise IllegalMove(f"{state.endpoint} is not held, there is nothing to resume")
    named = [rule for rule in stages if rule.name == state.stage]
    lower = [rule for rule in stages if rule.share <= state.stage_share]
    return enter(state, (named or lower[-1:] or [stages[0]])[0], now_us)


def enter(state: ReleaseState, stage: StageRule, now_us: int) -> ReleaseState:
    """Take up a stage: its share for the challenger, the clock of the stage from now."""
    slots = split(state.slots, state.experiment, state.champion, {state.challenger: stage.share})
    return replace(state, slots=slots, stage=stage.name, stage_share=stage.share, stage_since_us=now_us, hold="")


def split(slots: tuple[Slot, ...], salt: str, champion: str, shares: dict[str, Decimal]) -> tuple[Slot, ...]:
    """Slots in which each challenger has its share and the champion the rest."""
    challengers = {name: width(share) for name, share in shares.items() if name != champion}
    origins = {name: origin(salt, name) for name in challengers}
    return resize(slots, champion, challengers, origins)
