"""The moves of a release as a table: from which status, by which decision, to which status and split.

A move that is not in the table cannot be made, whoever asks for it.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from msgspec.structs import replace

from gateway.assignment.ranges import origin, resize, whole, width
from gateway.errors import GatewayError
from gateway.evidence.definition import Definition
from gateway.evidence.report import WATCH
from gateway.plan import Slot
from gateway.release.state import Decision, Kind, ReleaseState, StageRule, Status
from gateway.release.view import Rules


class IllegalMove(GatewayError):
    """The release is not in a state from which that decision makes sense."""

    status = 409
    reason = "illegal_move"


class Move(NamedTuple):
    to: Status
    split: str  # what happens to the challengers' shares: stage, fewer, won, all, none, keep


MOVES: dict[tuple[Status, Kind], Move] = {
    ("running", "advance"): Move("running", "stage"),
    ("running", "resume"): Move("running", "stage"),
    ("running", "hold"): Move("running", "keep"),
    ("running", "drop"): Move("running", "fewer"),
    ("running", "promote"): Move("promoted", "won"),
    ("running", "rollback"): Move("rolled_back", "none"),
    ("running", "inconclusive"): Move("inconclusive", "none"),
    ("promoted", "complete"): Move("promoted", "all"),
    ("promoted", "rollback"): Move("rolled_back", "none"),
}


def move(state: ReleaseState, decision: Decision, rules: Rules, home: str, now_us: int) -> ReleaseState:
    """The state after a decision. Raises IllegalMove if the table has no such move.

    `home` is the champion of the experiment's definition: where a rollback goes.
    """
    step = MOVES.get((state.status, decision.kind))
    if step is None:
        raise IllegalMove(f"{state.endpoint} is {state.status}: {decision.kind} is not possible")
    if decision.variant and decision.variant not in state.contenders:
        raise IllegalMove(f"{decision.variant} is not in the running at {state.endpoint}")
    if step.split == "keep":
        return replace(state, hold=decision.text)
    if step.split == "stage":
        return _take_up(state, decision, rules.stages, now_us)
    if step.split == "fewer":
        return _drop(state, decision)
    if step.split == "won":
        return _promote(state, decision, rules.holdback, now_us)
    if step.split == "all":
        return _complete(state)
    return _go_home(state, step.to, home, decision.variant)


def _take_up(state: ReleaseState, decision: Decision, stages: tuple[StageRule, ...], now_us: int) -> ReleaseState:
    if decision.kind == "resume":
        return _resume(state, stages, now_us)
    stage = next((rule for rule in stages if rule.name == decision.stage), None)
    if stage is None:
        raise IllegalMove(f"there is no stage {decision.stage!r}; the config has {[rule.name for rule in stages]}")
    return enter(state, stage, now_us)


def _resume(state: ReleaseState, stages: tuple[StageRule, ...], now_us: int) -> ReleaseState:
    """Take up the stage as the config has it now; if it is gone, the last one that does not raise the share."""
    if not state.hold:
        raise IllegalMove(f"{state.endpoint} is not held, there is nothing to resume")
    named = [rule for rule in stages if rule.name == state.stage]
    lower = [rule for rule in stages if rule.share <= state.stage_share]
    return enter(state, (named or lower[-1:] or [stages[0]])[0], now_us)


def begun(definition: Definition, now_us: int) -> ReleaseState:
    """A release whose experiment has begun, before its first stage: everything is the champion's."""
    return ReleaseState(
        endpoint=definition.endpoint,
        champion=definition.champion,
        slots=whole(definition.champion),
        status="running",
        experiment=definition.id,
        challenger=definition.challengers[0],
        challengers=definition.challengers,
        started_at_us=now_us,
    )


def enter(state: ReleaseState, stage: StageRule, now_us: int) -> ReleaseState:
    """Take up a stage: its share for each challenger in the running, the clock of the stage from now."""
    slots = split(state.slots, state.experiment, state.champion, dict.fromkeys(state.contenders, stage.share))
    return replace(state, slots=slots, stage=stage.name, stage_share=stage.share, stage_since_us=now_us, hold="")


def restarted(state: ReleaseState, now_us: int) -> ReleaseState:
    """The clocks of what no request could reach until now."""
    first = state.stage_since_us == state.started_at_us
    return replace(
        state,
        started_at_us=now_us if first else state.started_at_us,
        stage_since_us=now_us,
        watch_since_us=now_us if state.watching else state.watch_since_us,
    )


def _drop(state: ReleaseState, decision: Decision) -> ReleaseState:
    """One of several leaves, its share is the champion's; nobody else moves, and the stage goes on."""
    if len(state.contenders) == 1:
        raise IllegalMove(f"{state.contenders[0]} is the last challenger of {state.endpoint}: roll back instead")
    after = state.without(_which(state, decision))
    shares = dict.fromkeys(after.contenders, state.stage_share)
    return replace(after, slots=split(state.slots, state.experiment, state.champion, shares))


def _promote(state: ReleaseState, decision: Decision, holdback: Decimal, now_us: int) -> ReleaseState:
    """All traffic goes to the new champion, but for what the old one keeps: a holdback, segments that were harmed."""
    champion = _which(state, decision)
    won = replace(
        state,
        status="promoted",
        champion=champion,
        challenger=champion,
        challengers=(),
        kept=decision.kept,
        slots=whole(champion),
        hold="",
    )
    if not holdback:
        return won
    return replace(
        won,
        slots=split(state.slots, state.experiment, champion, {state.champion: holdback}),
        stage=WATCH,
        stage_share=holdback,
        stage_since_us=now_us,
        former=state.champion,
        watch_since_us=now_us,
    )


def _complete(state: ReleaseState) -> ReleaseState:
    if not state.watching:
        raise IllegalMove(f"{state.endpoint}: no watch is running that could be completed")
    return replace(state, slots=whole(state.champion), former="", watch_since_us=0)


def _go_home(state: ReleaseState, to: Status, home: str, variant: str) -> ReleaseState:
    return replace(
        state,
        status=to,
        champion=home,
        challenger=variant or state.challenger,
        challengers=(),
        slots=whole(home),
        former="",
        watch_since_us=0,
        kept=(),
        hold="",
    )


def _which(state: ReleaseState, decision: Decision) -> str:
    """The challenger that a decision is about."""
    if not decision.variant and len(state.contenders) > 1:
        raise IllegalMove(f"{decision.kind} which challenger of {state.endpoint}: {' or '.join(state.contenders)}?")
    return decision.variant or state.contenders[0]


def split(slots: tuple[Slot, ...], salt: str, champion: str, shares: dict[str, Decimal]) -> tuple[Slot, ...]:
    """Slots in which each challenger has its share and the champion the rest."""
    challengers = {name: width(share) for name, share in shares.items() if name != champion}
    origins = {name: origin(salt, name) for name in challengers}
    return resize(slots, champion, challengers, origins)
