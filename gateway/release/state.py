"""Where the release of an endpoint stands: what the store keeps, and what a stage demands."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

import msgspec
from msgspec.structs import replace

from gateway.plan import HASH_SPACE, KeptPlan, Slot, shares

Status = Literal["fixed", "running", "promoted", "rolled_back", "inconclusive"]
Kind = Literal[
    "start", "continue", "hold", "resume", "advance", "drop", "promote", "complete", "rollback", "inconclusive",
    "withdraw", "erase",
]  # fmt: skip

BLAMELESS = frozenset({"futility", "equivalent"})  # reasons to leave that are no harm


class StageRule(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a release, as the config has it; times in microseconds."""

    name: str
    share: Decimal  # of each challenger
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
    challenger: str = ""  # the one it is or was about: the promoted one, the only one, the first of several
    stage: str = ""
    stage_share: Decimal = Decimal(0)
    stage_since_us: int = 0
    started_at_us: int = 0
    hold: str = ""
    challengers: tuple[str, ...] = ()  # still in the running
    former: str = ""  # the old champion, while it keeps a holdback and the new one is watched
    watch_since_us: int = 0
    kept: tuple[KeptPlan, ...] = ()  # segments that stayed with the old champion

    @property
    def contenders(self) -> tuple[str, ...]:
        """The challengers in the running; a state stored by an earlier version names its only one."""
        return self.challengers or (self.challenger,)

    @property
    def watching(self) -> bool:
        return self.status == "promoted" and bool(self.former)

    @property
    def open(self) -> bool:
        """Whether evidence may still change anything."""
        return self.status == "running" or self.watching

    def without(self, variant: str) -> ReleaseState:
        """One of several contenders fewer; the split is as before."""
        rest = tuple(name for name in self.contenders if name != variant)
        return replace(self, challengers=rest, challenger=rest[0])


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What to do about the evidence, and why, in words that a person can check."""

    kind: Kind
    reason: str  # a bounded word
    text: str
    stage: str = ""  # where to go, for advance
    variant: str = ""  # the challenger that it is about; "" for all in the running
    kept: tuple[KeptPlan, ...] = ()  # segments that a promotion leaves with the old champion

    @property
    def expels(self) -> bool:
        """Whether a challenger leaves because of harm: its artifact goes into quarantine."""
        return self.kind == "rollback" or (self.kind == "drop" and self.reason not in BLAMELESS)


def shares_of(slots: tuple[Slot, ...]) -> dict[str, float]:
    """The realised split, in shares that sum to 1."""
    return {variant: width / HASH_SPACE for variant, width in shares(slots).items()}


def encode(state: ReleaseState) -> str:
    return msgspec.json.encode(state).decode()


def decode(text: str) -> ReleaseState:
    return msgspec.json.decode(text, type=ReleaseState)
