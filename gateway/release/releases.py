"""What is known of the releases of a node, and how they are moved: one place for states, evidence and the ledger."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from gateway.clock import Clock
from gateway.config.load import LoadedConfig
from gateway.errors import ConfigError
from gateway.evidence.engine import AnyEngine
from gateway.release import compile as compiled
from gateway.release.artifacts import MODELS, Artifacts
from gateway.release.halts import Halts
from gateway.release.health import Health
from gateway.release.journal import Basis, Journal
from gateway.release.membership import Membership
from gateway.release.needs import kept
from gateway.release.policy import would_be
from gateway.release.runs import Run
from gateway.release.settling import Settling
from gateway.release.stages import IllegalMove, move, restarted
from gateway.release.state import Decision, ReleaseState
from gateway.release.view import Rules, View
from gateway.release.words import stays
from gateway.store.base import Store

log = logging.getLogger(__name__)


class Releases:
    """Every release of one node. After a StoreError its memory may be ahead of the store: `start_over`."""

    def __init__(
        self, loaded: LoadedConfig, store: Store, data_dir: Path, clock: Clock, membership: Membership
    ) -> None:
        self._store = store
        self._spool = data_dir / "spool"
        self._clock = clock
        self.membership = membership
        self.health = Health(data_dir / "status", clock)
        self.halts = Halts(data_dir)
        self._runs: dict[str, Run] = {}
        self._moved_at: int | None = None
        self._journal = Journal(store, clock)
        self.engine: AnyEngine = membership.engine(self._spool)
        self.settling = Settling(loaded, Artifacts(folder=data_dir / MODELS), self._journal, store, clock)

    @property
    def loaded(self) -> LoadedConfig:
        return self.settling.loaded

    @property
    def artifacts(self) -> Artifacts:
        return self.settling.artifacts

    @property
    def states(self) -> Mapping[str, ReleaseState]:
        return self.settling.states

    def run(self, experiment: str) -> Run:
        return self._runs.setdefault(experiment, Run())

    def rules(self, endpoint: str) -> Rules:
        return compiled.rules(self.loaded.config.endpoints[endpoint])

    @property
    def trouble(self) -> str:
        """Why the log of this node is not whole, "" if it is."""
        if self.health.facts_lost:
            return "assignments could not be kept"
        return f"a spool cannot be read: {self.engine.damaged}" if self.engine.damaged else ""

    @property
    def facts_lost(self) -> bool:
        """Of this node or another."""
        return bool(self.trouble or self.membership.trouble)

    def view(self, name: str, *, loading: bool) -> View:
        """What is known of a release now, but for the kill rule, which counts looks."""
        state = self.states[name]
        thresholds = compiled.thresholds(self.loaded.config.endpoints[name])
        run = self.run(state.experiment)
        return View(
            definition=self.engine.evidence[state.experiment].definition,
            rules=self.rules(name),
            state=state,
            report=run.look(state.experiment, self.engine, thresholds, self.loaded.digest, self._store),
            now_us=self._clock.wall_us(),
            facts_lost=self.facts_lost,
            loading=loading,
            disagreement=self.membership.disagreement(self.loaded.common),
        )

    # ------------------------------------------------------------------ moving

    def apply(
        self, name: str, decision: Decision, actor: str, *, leading: bool = False, view: View | None = None
    ) -> None:
        """Make one move. What rests on statistics is the leader's to make (`leading`); `view`: what the policy saw."""
        before = self.states[name]
        self._look_at(name)
        home = self.engine.evidence[before.experiment].definition.champion
        after = move(before, decision, self.rules(name), home, self._clock.wall_us())
        variants = self.loaded.config.endpoints[name].variants
        with self._journal.moves(self._basis(self.loaded), leading=leading) as moves:
            moves.save({name: after})
            report = self.run(before.experiment).report
            moves.record(after, before, after, decision, actor, report, view.terms if view else None)
            moves.quarantine(before, decision, actor, home, lambda variant: self.artifacts.name(variants[variant]))
        self._have_moved()
        self.run(before.experiment).ledger_has_grown()
        if decision.kind == "promote":
            # Whatever it was blamed for: without it nobody is left to compare the winner with.
            self.health.crashes.forgive(name, before.champion)
        about = {"endpoint": name, "experiment": before.experiment, "reason": decision.reason}
        log.warning("%s: %s", decision.kind, decision.text, extra=about)

    def _look_at(self, name: str) -> None:
        """A row of the ledger names the present step, so its report must be that step's."""
        state, endpoint = self.states[name], self.loaded.config.endpoints[name]
        if state.experiment in self.engine.evidence and endpoint.experiment is not None:
            thresholds = compiled.thresholds(endpoint)
            self.run(state.experiment).look(state.experiment, self.engine, thresholds, self.loaded.digest, self._store)

    def restricted(self, name: str, decision: Decision) -> Decision:
        """A person's promotion, too, leaves harmed segments where they are, if the config says so."""
        if decision.kind != "promote":
            return decision
        stay = kept(self.view(name, loading=False), decision.variant or self.states[name].contenders[0])
        return msgspec.structs.replace(decision, kept=stay, text=decision.text + stays(stay))

    def write_what_would_be(self, view: View) -> None:
        """In a trial of equals every would-be decision is a row, when it appears for the first time."""
        state, run = view.state, self.run(view.state.experiment)
        unsaid = run.unsaid(would_be(view), state.experiment, self._store)
        if not unsaid:
            return
        with self._journal.moves(self._basis(self.loaded), leading=True) as moves:
            for decision in unsaid:
                moves.record(state, state, state, decision, "gateway", view.report, view.terms)
        run.say(unsaid)
        run.ledger_has_grown()

    def write_halts(self) -> bool:
        """Write down what was stopped while nobody could write; whether anything of it is settled by that."""
        for name in self.loaded.config.endpoints:
            for halt in self.halts.of(name):
                state = self.states[name]
                if halt.concerns(state):
                    with suppress(IllegalMove):  # the release has gone on in another way: then it is settled below
                        self.apply(name, halt.decision(state), halt.actor)
        return self.halts.settle(self.states)

    def restart_clocks(self, names: Collection[str]) -> None:
        """No request could reach what these endpoints have waited for, so its time begins now."""
        waiting = [state for name in names if (state := self.states[name]).open]
        if waiting and self.engine.leading:
            with self._journal.moves(self._basis(self.loaded), leading=True) as moves:
                moves.save({state.endpoint: restarted(state, self._clock.wall_us()) for state in waiting})
            self._have_moved()

    def _have_moved(self) -> None:
        """Also a node whose file is not what is written down serves its own moves at once."""
        if not self.settling.settled:
            self.settling.look(self.engine)

    # ------------------------------------------------------------------ what the config asks for

    def take(self, loaded: LoadedConfig, artifacts: Artifacts) -> None:
        """Use a config; write down what follows from it, if that is this node's to do now."""
        if self._decides(loaded):
            self._write(loaded, artifacts)
        else:
            self.settling.take(loaded, artifacts, self.engine)

    def follow(self) -> bool:
        """What other nodes have written, and what this one may write by now; whether there was any of it."""
        moved = self.membership.shared and self._journal.refresh()
        if moved:
            newest = self._store.ledger(1)
            self._moved_at = newest[0].at if newest else None
            self.engine.catch_up()  # an experiment may have begun
            self.settling.look(self.engine)
            for run in self._runs.values():
                run.ledger_has_grown()
        if self.settling.settled or not self._decides(self.loaded):
            return moved
        try:
            self._write(self.loaded, self.artifacts)
        except ConfigError as error:
            self.settling.pin(self.loaded, self.artifacts, error)
        return True

    def moved_elsewhere(self) -> int | None:
        """When another node made the move that was learned of since the last question; None if there was none."""
        at, self._moved_at = self._moved_at, None
        return at

    def start_over(self) -> None:
        """What the store has is what happened."""
        self._store.recover()
        self.membership.lost()
        self.membership.rejoin()
        self._journal.load()
        self.engine = self.membership.engine(self._spool)
        self.settling.look(self.engine)
        for run in self._runs.values():
            run.store_came_back()

    def _decides(self, loaded: LoadedConfig) -> bool:
        return self.engine.leading and not self.membership.disagreement(loaded.common)

    def _write(self, loaded: LoadedConfig, artifacts: Artifacts) -> None:
        for name in self.loaded.config.endpoints.keys() & self.states.keys():
            self._look_at(name)
        rows = self.settling.write(loaded, artifacts, self.engine, self._basis(loaded), self._runs)
        for row in rows:
            self.run(row.about.experiment).ledger_has_grown()

    def _basis(self, loaded: LoadedConfig) -> Basis:
        return Basis(self.engine.step_number, self.engine.watermark, loaded.digest)
