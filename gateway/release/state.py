"""Where the release of an endpoint stands: what the store keeps, and what a stage demands."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

import msgspec

from gateway.plan import HASH_SPACE, Slot, shares

Status = Literal["fixed", "running", "promoted", "rolled_back", "inconclusive"]
Kind = Literal["start", "continue", "hold", "resume", "advance", "promote", "rollback", "inconclusive", "withdraw"]


class StageRule(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a release, as the config has it; times in microseconds."""

    name: str
    share: Decimal
    min_duration_us: int
    min_units: int
    min_challenger_units: int


class ReleaseState(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint. `hold` is set while a person must resume; statistical holds come and go by themselves."""

    endpoint: str
    champion: str
    slots: tuple[Slot, ...]
    status: Status
    experiment: str = ""
    challenger: str = ""
    stage: str = ""
    stage_share: Decimal = Decimal(0)
    stage_since_us: int = 0
    started_at_us: int = 0
    hold: str = ""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What to do about the evidence, and why, in words that a person can check."""

    kind: Kind
    reason: str  # a bounded word
    text: str
    stage: str = ""  # where to go, for advance


def shares_of(state: ReleaseState) -> dict[str, Decimal]:
    """The realised split of a state, in shares that sum to 1 (rounded to 2**-64)."""
    return {name: Decimal(width) / HASH_SPACE for name, width in shares(state.slots).items()}


def encode(state: ReleaseState) -> str:
    return msgspec.json.encode(state).decode()


def decode(text: str) -> ReleaseState:
    return msgspec.json.decode(text, type=ReleaseState)
