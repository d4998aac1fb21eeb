"""The control loop: look, fold, judge, decide, publish. One tick does each once, and writes once.

The controller owns what may change a split. It never answers traffic; when it is gone, the last plan serves on.
While the store fails, nothing is decided and the last plan serves on, too. One limit follows from that: a plan is only
published with its row, so the kill rule cannot stop a challenger during an outage of the store. The breakers in
the workers do (the champion answers), and the rollback comes with the first tick that finds the store again. For models
that crash their workers there is no breaker. Their crashes are noted all the same, but workers load and run them until
the store is back; meanwhile the supervisor starts these ever more slowly.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec

from gateway.clock import Clock
from gateway.config.load import LoadedConfig
from gateway.errors import StoreError, UnknownEndpoint
from gateway.evidence.engine import Engine
from gateway.plan import Plan, models
from gateway.release import compile as compiled
from gateway.release.artifacts import MODELS, Artifacts
from gateway.release.health import Health
from gateway.release.journal import Basis, Journal
from gateway.release.keys import Keys
from gateway.release.models import read_models
from gateway.release.needs import kept
from gateway.release.phases import arriving
from gateway.release.policy import decide, permitted, would_be
from gateway.release.publish import Publisher
from gateway.release.reconcile import reconcile
from gateway.release.runs import Run
from gateway.release.sparing import crashing, models_of
from gateway.release.stages import IllegalMove, move, restarted
from gateway.release.state import Decision, Kind, ReleaseState
from gateway.release.view import Rules, View
from gateway.release.words import stays
from gateway.store.base import LedgerRow, Store

log = logging.getLogger(__name__)


class Controller:
    """Drives every release of one node. Not thread-safe: its owner calls one method at a time.

    `as_served` is for a start in front of model files that are refused: the models of the plan on disk serve on.
    """

    def __init__(
        self, loaded: LoadedConfig, store: Store, data_dir: Path, keys: Keys, clock: Clock, as_served: bool = False
    ) -> None:
        self.loaded = loaded
        self._store = store
        self._spool = data_dir / "spool"
        self._clock = clock
        self._artifacts = Artifacts(folder=data_dir / MODELS)
        self._publisher = Publisher(data_dir / "plan.json", store, keys, clock)
        self._prune_due = True
        self._runs: dict[str, Run] = {}
        self.store_error = ""
        self.health = Health(data_dir / "status", clock)
        self._journal = Journal(store, clock)
        self.engine = Engine(self._spool, store, clock)
        self.health.look()
        serving = self.plan if as_served else None
        self.take(loaded, self._artifacts.as_served(loaded.config, serving) if serving else None)

    @property
    def states(self) -> Mapping[str, ReleaseState]:
        return self._journal.states

    @property
    def plan_revision(self) -> int:
        return self._publisher.current.revision if self._publisher.current else 0

    @property
    def plan(self) -> Plan | None:
        """What the workers serve from, or are about to."""
        return self._publisher.current

    @property
    def artifacts(self) -> Artifacts:
        return self._artifacts

    def run(self, experiment: str) -> Run:
        return self._runs.setdefault(experiment, Run())

    def rules(self, endpoint: str) -> Rules:
        return compiled.rules(self.loaded.config.endpoints[endpoint])

    def ledger(self) -> list[LedgerRow]:
        return self._store.ledger()

    def tick(self) -> None:
        """One round. A failing store pauses decisions and says so; the next tick starts over from the store."""
        self.health.look()
        try:
            if self.store_error:
                self._reload()
            self.engine.step()
            for name in self.loaded.config.endpoints:
                if self.states[name].experiment:
                    self._judge(name)
            self._publish()
        except StoreError as error:
            self._fail(error)
        else:
            self.store_error = ""

    def take(self, loaded: LoadedConfig, read: Artifacts | None = None) -> None:
        """Serve from a config. Raises ConfigError if it contradicts what has happened; then nothing changed.

        Its model files are read now, unless they have been (`read`): whoever has a loop to keep going reads them aside.
        Raises StoreError if it could not be written down; then the config may be taken again.
        """
        artifacts = read or read_models(loaded, self._artifacts)
        result = reconcile(
            str(loaded.path),
            loaded.config,
            self.states,
            {id: evidence.definition for id, evidence in self.engine.evidence.items()},
            artifacts,
            self._store.quarantined,
            self._clock.wall_us(),
        )
        rows = list(result.rows(self.states))
        try:
            with self._journal.moves(self._basis(loaded)) as moves:
                for definition in result.starts:
                    self.engine.start(definition)
                for row in rows:
                    moves.record(*row, "config", self.run(row.about.experiment).report)
                moves.save(result.states)
        except StoreError as error:
            self._fail(error)  # the engine's memory may be ahead of the store
            raise
        self.loaded, self._artifacts = loaded, artifacts
        endpoints = loaded.config.endpoints.items()
        self.health.crashes.keep({model for name, one in endpoints for model in models_of(name, one, artifacts)})
        for row in rows:
            self.run(row.about.experiment).ledger_has_grown()
        self._publisher.due = True
        self._publish_or_fail()

    def command(self, endpoint: str, kind: Kind, actor: str, text: str, variant: str = "") -> None:
        """What a person asks for: hold, resume, drop, promote, complete, rollback; `variant` where there are several.

        A resume also tries the models again that are stopped here, whether or not anything is held. Raises IllegalMove,
        UnknownEndpoint, StoreError.
        """
        if kind == "resume" and self.health.crashes.concern(endpoint) and not self.states[endpoint].hold:
            log.warning("%s: %s has its models tried again that crashed: %s", endpoint, actor, text)
            self.health.crashes.forgive(endpoint)
            self._publish_or_fail()
            return
        if endpoint not in self.loaded.config.endpoints or not self.states[endpoint].experiment:
            raise UnknownEndpoint(f"there is no experiment at {endpoint!r}")
        if kind == "promote" and self.engine.evidence[self.states[endpoint].experiment].definition.aa:
            raise IllegalMove(f"{endpoint} runs a trial of equals: there is nobody to promote")
        decision = Decision(kind=kind, reason="manual", text=text or f"asked for by {actor}", variant=variant)
        self._apply(endpoint, self._restricted(endpoint, decision), actor)
        if kind in ("resume", "promote"):
            self.health.crashes.forgive(endpoint)
        self._publish_or_fail()

    def _restricted(self, name: str, decision: Decision) -> Decision:
        """A person's promotion, too, leaves harmed segments where they are, if the config says so."""
        if decision.kind != "promote":
            return decision
        stay = kept(self._view(name), decision.variant or self.states[name].contenders[0])
        return msgspec.structs.replace(decision, kept=stay, text=decision.text + stays(stay))

    def _judge(self, name: str) -> None:
        """Read the evidence of one experiment and do what follows from it."""
        state = self.states[name]
        run = self.run(state.experiment)
        kills = run.kills(self.health, state) if state.status == "running" else {}
        stopped = self.health.crashes.stopped if state.open else {}
        crashes = crashing(name, self.loaded.config.endpoints[name], self._artifacts, stopped)
        known = self.engine.progress(state.experiment), self._facts_lost, self._loading(name), crashes
        if not kills and not run.due((state, self.loaded.digest, known), self._clock.monotonic()):
            return
        view = msgspec.structs.replace(self._view(name), kills=kills, crashes=crashes)
        if not state.open:
            return
        if view.definition.aa and state.status == "running":
            self._write_what_would_be(run, view)
        run.decision = run.ripened(decide(view), self.engine.seen_through, self._clock.wall_us())
        self._act(name, view.rules, run.decision)

    def _view(self, name: str) -> View:
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
            facts_lost=self._facts_lost,
            loading=self._loading(name),
        )

    @property
    def _facts_lost(self) -> bool:
        return self.health.facts_lost or self.engine.damaged

    def _loading(self, name: str) -> bool:
        return name in self._publisher.held

    def _write_what_would_be(self, run: Run, view: View) -> None:
        """In a trial of equals every would-be decision is a row, when it appears for the first time."""
        state, unsaid = view.state, run.unsaid(would_be(view), view.state.experiment, self._store)
        if not unsaid:
            return
        with self._journal.moves(self._basis(self.loaded)) as moves:
            for decision in unsaid:
                moves.record(state, state, state, decision, "gateway", view.report)
        run.say(unsaid)
        run.ledger_has_grown()

    def _act(self, name: str, rules: Rules, decision: Decision) -> None:
        """Apply what the policy decided, as far as automation allows."""
        if not permitted(rules.automation, decision):
            return
        if decision.kind == "inconclusive" and rules.on_inconclusive == "hold":
            decision = msgspec.structs.replace(decision, kind="hold")
        self._apply(name, decision, "gateway")

    def _apply(self, name: str, decision: Decision, actor: str) -> None:
        """Make one move; the plan that follows from it is due."""
        before = self.states[name]
        home = self.engine.evidence[before.experiment].definition.champion
        after = move(before, decision, self.rules(name), home, self._clock.wall_us())
        variants = self.loaded.config.endpoints[name].variants
        with self._journal.moves(self._basis(self.loaded)) as moves:
            moves.save({name: after})
            moves.record(after, before, after, decision, actor, self.run(before.experiment).report)
            moves.quarantine(before, decision, actor, home, lambda variant: self._artifacts.name(variants[variant]))
        self._publisher.due = True
        self.run(before.experiment).ledger_has_grown()
        if decision.kind == "promote":
            # Whatever it was blamed for: without it nobody is left to compare the winner with.
            self.health.crashes.forgive(name, before.champion)
        about = {"endpoint": name, "experiment": before.experiment, "reason": decision.reason}
        log.warning("%s: %s", decision.kind, decision.text, extra=about)

    def _basis(self, loaded: LoadedConfig) -> Basis:
        return Basis(self.engine.step_number, self.engine.watermark, loaded.digest)

    def _publish(self) -> None:
        """Bring the plan file up to date: after a move, an outage, or a load, or if somebody has removed it."""
        ready, stopped = self.health.loaded(self.plan), self.health.crashes.stopped
        if self._publisher.awaits(ready, stopped):
            following = self._publisher.stage(self.loaded, self._artifacts, self.states, ready, stopped)
            self._restart_clocks(arriving(self.plan, following))
            self._publisher.publish(following, self.engine.step_number)
            self._prune_due = True

    def _restart_clocks(self, names: Collection[str]) -> None:
        """No request could reach what these endpoints have waited for, so its time begins now."""
        waiting = [state for name in names if (state := self.states[name]).open]
        if waiting:
            with self._journal.moves(self._basis(self.loaded)) as moves:
                moves.save({state.endpoint: restarted(state, self._clock.wall_us()) for state in waiting})

    def prune(self) -> None:
        """Delete copies of models that neither the plan, nor the config, nor a living worker needs any more.

        For times when nobody takes in a config: its copies would seem to be needed by nobody.
        """
        if self._prune_due and self.plan is not None and self.health.serve_from(self.plan):
            self._artifacts.prune({one.variant.digest for one in (*models(self.plan.endpoints), *self.plan.prepare)})
            self._prune_due = False

    def _publish_or_fail(self) -> None:
        """What was decided stands; if its plan cannot be written now, the next tick does it."""
        try:
            self._publish()
        except StoreError as error:
            self._fail(error)

    def _reload(self) -> None:
        self._journal.load()
        self.engine = Engine(self._spool, self._store, self._clock)
        for run in self._runs.values():
            run.store_came_back()
        self._publisher.due = True

    def _fail(self, error: StoreError) -> None:
        if not self.store_error:
            log.error("the store failed; decisions pause, traffic does not", exc_info=error)
        self.store_error = str(error)
