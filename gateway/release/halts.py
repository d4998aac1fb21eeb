"""Challengers that this node has stopped by itself: the kill rule, or a person on the spot. It needs no store.

A halt takes a challenger to 0 % in this node's plan at once. It enters the ledger as a rollback as soon as somebody can
write one; until then it stands, also across restarts, as a small file beside the plan.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from gateway.release.state import Decision, Kind, ReleaseState

log = logging.getLogger(__name__)

FOLDER = "halts"  # in the data directory
_SAFE = re.compile(r"[^A-Za-z0-9_-]")


class Halt(msgspec.Struct, frozen=True, kw_only=True):
    """Why the challengers of an experiment, or one of them, get nothing on this node."""

    endpoint: str
    experiment: str
    variant: str  # "" for all
    reason: str  # a bounded word
    text: str
    actor: str
    at: int  # microseconds since the epoch

    @classmethod
    def of_rule(cls, state: ReleaseState, variant: str, reason: str, text: str, at: int) -> Halt:
        return cls(
            endpoint=state.endpoint,
            experiment=state.experiment,
            variant=variant,
            reason=reason,
            text=text,
            actor="gateway",
            at=at,
        )

    def decision(self, state: ReleaseState) -> Decision:
        """The move that it stands for."""
        kind: Kind = "drop" if self.variant and len(state.contenders) > 1 else "rollback"
        since = datetime.fromtimestamp(self.at / 1e6, tz=UTC).isoformat(timespec="seconds")
        text = f"{self.text} (stopped on one node since {since}, while the store was away)"
        return Decision(kind=kind, reason=self.reason, text=text, variant=self.variant)

    @property
    def file_name(self) -> str:
        return _SAFE.sub("_", f"{self.endpoint}-{self.variant}") + ".json"

    def concerns(self, state: ReleaseState) -> bool:
        """Whether there is still somebody to stop."""
        if not state.open or state.experiment != self.experiment:
            return False
        return not self.variant or self.variant in state.contenders or state.watching


class Halts:
    """The halts of one node. A file that cannot be written is held in memory alone, and said so."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / FOLDER
        self._halts: dict[str, Halt] = {}

    def look(self) -> bool:
        """Read what a person, or an earlier process, has put there; whether anything is new."""
        try:
            paths = sorted(self._folder.glob("*.json"))
            fresh = {path.name: path.read_bytes() for path in paths if path.name not in self._halts}
        except OSError:
            return False
        for name, text in fresh.items():
            try:
                self._halts[name] = msgspec.json.decode(text, type=Halt)
            except msgspec.DecodeError as error:
                log.error("%s: not a halt: %s", self._folder / name, error)  # noqa: TRY400 - the line says it all
                (self._folder / name).unlink(missing_ok=True)
        return bool(fresh)

    def add(self, halt: Halt) -> bool:
        """Whether it is new."""
        if halt.file_name in self._halts:
            return False
        self._halts[halt.file_name] = halt
        log.error("%s: stopped on this node: %s", halt.endpoint, halt.text)
        try:
            write(self._folder, halt)
        except OSError as error:
            log.warning("the halt of %s is in memory alone: %s", halt.endpoint, error)
        return True

    @property
    def all(self) -> Collection[Halt]:
        return self._halts.values()

    def of(self, endpoint: str) -> list[Halt]:
        return [halt for halt in self._halts.values() if halt.endpoint == endpoint]

    def settle(self, states: Mapping[str, ReleaseState]) -> bool:
        """Forget those that the release has heard of: their challengers are out. Whether there were any."""
        heard = [
            name
            for name, halt in self._halts.items()
            if halt.endpoint in states and not halt.concerns(states[halt.endpoint])
        ]
        for name in heard:
            del self._halts[name]
            (self._folder / name).unlink(missing_ok=True)
        return bool(heard)

    def forgive(self, endpoint: str) -> None:
        """A person wants it to go on."""
        for halt in self.of(endpoint):
            del self._halts[halt.file_name]
            (self._folder / halt.file_name).unlink(missing_ok=True)


def write(folder: Path, halt: Halt) -> None:
    """Put a halt where the control process finds it; visible whole. Raises OSError."""
    folder.mkdir(exist_ok=True)
    temporary = folder / f".{halt.file_name}.new"
    temporary.write_bytes(msgspec.json.encode(halt))
    temporary.replace(folder / halt.file_name)
