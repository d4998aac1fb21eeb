"""Challengers that this node has stopped by itself: the kill rule, or a person on the spot. It needs no store.

A halt takes a challenger to 0 % in this node's plan at once. It enters the ledger as a rollback as soon as somebody can
write one; until then it stands, also across restarts, as a small file beside the plan.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from gateway.files import give_to_owner
from gateway.release.state import Decision, Kind, ReleaseState

log = logging.getLogger(__name__)

FOLDER = "halts"  # in the data directory


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
    def of_rule(cls, endpoint: str, experiment: str, variant: str, text: str, at: int) -> Halt:
        """The kill rule has spoken."""
        return cls(
            endpoint=endpoint,
            experiment=experiment,
            variant=variant,
            reason="kill_rule",
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
        """Of its own for each that may stand beside others."""
        what = "\0".join((self.endpoint, self.experiment, self.variant))
        return f"{hashlib.blake2b(what.encode(), digest_size=12).hexdigest()}.json"

    def concerns(self, state: ReleaseState) -> bool:
        """Whether there is still somebody to stop."""
        if not state.open or state.experiment != self.experiment:
            return False
        if self.at < max(state.stage_since_us, state.watch_since_us):
            return False  # somebody has decided since, who knew more
        return not self.variant or self.variant in ((state.champion,) if state.watching else state.contenders)


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
                self._drop(name)
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
            self._drop(name)
        return bool(heard)

    def forgive(self, endpoint: str) -> None:
        """A person wants it to go on."""
        for halt in self.of(endpoint):
            self._drop(halt.file_name)

    def _drop(self, name: str) -> None:
        self._halts.pop(name, None)
        try:
            (self._folder / name).unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s: stays, and is read again: %s", self._folder / name, error)


def write(folder: Path, halt: Halt) -> None:
    """Put a halt where the control process finds it; visible whole. Raises OSError."""
    if not folder.exists():
        folder.mkdir()
        _give(folder, folder.parent)
    temporary = folder / f".{halt.file_name}.{os.getpid()}.new"
    temporary.write_bytes(msgspec.json.encode(halt))
    _give(temporary, folder.parent)
    temporary.replace(folder / halt.file_name)


def _give(path: Path, folder: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        give_to_owner(descriptor, folder)
    finally:
        os.close(descriptor)
