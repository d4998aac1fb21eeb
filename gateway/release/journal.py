"""Where every release stands and how it got there: states under compare-and-set, a ledger row for every move.

The state, the row and the quarantine of a move commit together and reach the disk before any plan follows from
them; so a crash at any moment leaves each move whole or not made, and recorded once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec

from gateway.clock import Clock
from gateway.evidence.report import Report
from gateway.release.state import Decision, ReleaseState, decode, encode
from gateway.store.base import Store


class Basis(NamedTuple):
    """On what a move rests: the fold step, the time up to which facts were known, the config."""

    step: int
    watermark: int
    config_digest: str


class Journal:
    """The release states of one node, as the store has them."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._versions: dict[str, int] = {}
        self.states: Mapping[str, ReleaseState] = {}
        self.load()

    def load(self) -> None:
        """Forget what is in memory: what the store has is what happened."""
        releases = self._store.releases()
        self._versions = {name: version for name, (version, _) in releases.items()}
        self.states = {name: decode(state) for name, (_, state) in releases.items()}

    def refresh(self) -> bool:
        """Whether another node has moved anything; then that is known now."""
        before = self._versions
        self.load()
        return self._versions != before

    @contextmanager
    def moves(self, basis: Basis, *, leading: bool = False) -> Iterator[Moves]:
        """Make moves, all or none; `leading` are those that only the leader may make.

        Raises StoreError: Overtaken if somebody else has moved a release meanwhile, LeaseLost if another node leads.
        """
        moves = Moves(self._store, self._clock.wall_us(), basis, self.states, self._versions)
        with self._store.transaction(durable=True, leading=leading):
            yield moves
        self._versions = self._versions | moves.versions
        self.states = {**self.states, **moves.states}


class Moves:
    """Moves in the making: lives within one transaction."""

    def __init__(
        self,
        store: Store,
        now_us: int,
        basis: Basis,
        states: Mapping[str, ReleaseState],
        versions: Mapping[str, int],
    ) -> None:
        self._store = store
        self._now_us = now_us
        self._basis = basis
        self._before = states
        self._known = versions
        self.states: dict[str, ReleaseState] = {}
        self.versions: dict[str, int] = {}

    def save(self, states: Mapping[str, ReleaseState]) -> None:
        """Write the states that differ from what is stored."""
        for name, state in states.items():
            if self._before.get(name) != state:
                self.versions[name] = self._store.save_release(name, self._known.get(name, 0), encode(state))
                self.states[name] = state

    def record(
        self,
        about: ReleaseState,
        before: ReleaseState | None,
        after: ReleaseState,
        decision: Decision,
        actor: str,
        report: Report | None,
        terms: Mapping[str, Any] | None = None,
    ) -> None:
        """One row of the ledger: who moved what from where to where, why, and on what evidence.

        `about` names the experiment that the row belongs to: the one that goes on, or that ends. `terms` are those on
        which the policy decided (`View.terms`); None where somebody else did.
        """
        body: dict[str, Any] = {
            "from": _place(before),
            "to": _place(after),
            "actor": actor,
            "reason": decision.reason,
            "text": decision.text,
            "variant": decision.variant,
            "config_digest": self._basis.config_digest,
            "watermark": self._basis.watermark,
            "evidence": msgspec.to_builtins(report) if report else None,
            "terms": terms,
        }
        self._store.append_ledger(self._now_us, self._basis.step, about.endpoint, about.experiment, decision.kind, body)

    def quarantine(
        self, before: ReleaseState, decision: Decision, actor: str, home: str, artifact_of: Callable[[str], str]
    ) -> None:
        """What went because of harm must not come back unchanged, unless a person says so.

        `home` is the experiment's champion: in a trial of equals its file is no suspect.
        """
        for variant in (decision.variant,) if decision.variant else before.contenders:
            artifact = artifact_of(variant)
            if decision.expels and artifact != artifact_of(home):
                self._store.quarantine(before.endpoint, artifact, before.experiment, self._now_us)
            elif actor != "gateway" and decision.kind in ("resume", "promote"):
                self._store.release_from_quarantine(before.endpoint, artifact)


def _place(state: ReleaseState | None) -> dict[str, str] | None:
    if state is None:
        return None
    return {"status": state.status, "stage": state.stage, "champion": state.champion}
