"""The control loop: look, fold, judge, decide, publish. One tick does each once, and writes once.

The controller owns what may change a split. It never answers traffic; when it is gone, the last plan serves on.
While the store fails, nothing is decided and the last plan serves on, too. One limit follows from that: a plan is only
published with its row, so the kill rule cannot stop a challenger during an outage of the store. The breakers in
the workers do (the champion answers), and the rollback comes with the first tick that finds the store again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from gateway.clock import Clock
from gateway.config.load import LoadedConfig
from gateway.errors import StoreError, UnknownEndpoint
from gateway.evidence.engine import Engine
from gateway.evidence.verdict import Report, judge
from gateway.release import compile as compiled
from gateway.release.health import Health
from gateway.release.journal import Basis, Journal, Moves
from gateway.release.keys import Keys
from gateway.release.kill import KillRule
from gateway.release.models import check_models
from gateway.release.policy import Rules, View, decide
from gateway.release.publish import Publisher
from gateway.release.reconcile import Reconciled, reconcile
from gateway.release.stages import move
from gateway.release.state import Decision, Kind, ReleaseState
from gateway.store.base import LedgerRow, Store

log = logging.getLogger(__name__)

_PERMITTED: dict[str, frozenset[Kind]] = {
    "off": frozenset(),
    "recommend": frozenset(),
    "rollback_only": frozenset({"rollback"}),
    "full": frozenset({"advance", "promote", "rollback", "inconclusive"}),
}


@dataclass(slots=True)
class Run:
    """What the controller remembers of an experiment between two ticks; a restart may forget it."""

    kill: KillRule = field(default_factory=KillRule)
    report: Report | None = None
    judged: tuple[int, str] = (-1, "")  # fold step and config of the report
    decision: Decision | None = None
    promotable_since: int = 0
    counters: Mapping[tuple[str, str], int] = field(default_factory=dict)
    decisions: Mapping[str, int] = field(default_factory=dict)  # rows of the ledger by kind


class Controller:
    """Drives every release of one node. Not thread-safe: its owner calls one method at a time."""

    def __init__(self, loaded: LoadedConfig, store: Store, data_dir: Path, keys: Keys, clock: Clock) -> None:
        self.loaded = loaded
        self._store = store
        self._spool = data_dir / "spool"
        self._clock = clock
        self._artifacts = compiled.Artifacts()
        self._publisher = Publisher(data_dir / "plan.json", store, keys, clock)
        self._publication_due = False
        self._runs: dict[str, Run] = {}
        self.store_error = ""
        self.health = Health(data_dir / "status")
        self._journal = Journal(store, clock)
        self.engine = Engine(self._spool, store, clock)
        self.take(loaded)

    @property
    def states(self) -> Mapping[str, ReleaseState]:
        return self._journal.states

    @property
    def plan_revision(self) -> int:
        return self._publisher.current.revision if self._publisher.current else 0

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

    def take(self, loaded: LoadedConfig) -> None:
        """Serve from a config. Raises ConfigError if it contradicts what has happened; then nothing changed.

        Raises StoreError if it could not be written down; then the config may be taken again.
        """
        artifacts = compiled.Artifacts(self._artifacts)
        check_models(loaded, artifacts)
        result = reconcile(
            str(loaded.path),
            loaded.config,
            self.states,
            {id: evidence.definition for id, evidence in self.engine.evidence.items()},
            artifacts,
            self._store.quarantined,
            self._clock.wall_us(),
        )
        try:
            with self._journal.moves(self._basis(loaded)) as moves:
                self._write_down(moves, result)
        except StoreError as error:
            self._fail(error)  # the engine's memory may be ahead of the store
            raise
        self.loaded, self._artifacts = loaded, artifacts
        self._publication_due = True
        self._publish_or_fail()

    def command(self, endpoint: str, kind: Kind, actor: str, text: str) -> None:
        """What a person asks for: hold, resume, promote, rollback. Raises IllegalMove, UnknownEndpoint, StoreError."""
        if endpoint not in self.loaded.config.endpoints or not self.states[endpoint].experiment:
            raise UnknownEndpoint(f"there is no experiment at {endpoint!r}")
        self._apply(endpoint, Decision(kind=kind, reason="manual", text=text or f"asked for by {actor}"), actor)
        self._publish_or_fail()

    def _judge(self, name: str) -> None:
        """Read the evidence of one experiment and do what follows from it."""
        state = self.states[name]
        run = self.run(state.experiment)
        report = self._report(name, state, run)
        if state.status != "running":
            return
        view = View(
            definition=self.engine.evidence[state.experiment].definition,
            rules=self.rules(name),
            state=state,
            report=report,
            now_us=self._clock.wall_us(),
            kill=run.kill.observe(*self.health.counts(state)),
            facts_lost=self.health.facts_lost or self.engine.damaged,
        )
        run.decision = self._ripened(run, decide(view))
        self._act(name, view.rules, run.decision)

    def _report(self, name: str, state: ReleaseState, run: Run) -> Report:
        """The report of the last fold step; made anew only if there was one, or another config."""
        basis = self.engine.step_number, self.loaded.digest
        if run.report is None or run.judged != basis:
            run.report = judge(
                self.engine.evidence[state.experiment],
                compiled.thresholds(self.loaded.config.endpoints[name]),
                self.engine.units(state.experiment),
                self.engine.folded(state.experiment),
            )
            run.counters = self._store.counters(state.experiment)
            run.decisions = self._store.decisions_by_kind(state.experiment)
            run.judged = basis
        return run.report

    def _ripened(self, run: Run, decision: Decision) -> Decision:
        """Promotion waits until every living spool is folded past the moment of the verdict (rule R3)."""
        if decision.kind != "promote":
            run.promotable_since = 0
            return decision
        run.promotable_since = run.promotable_since or self._clock.wall_us()
        if self.engine.seen_through >= run.promotable_since:
            return decision
        return msgspec.structs.replace(decision, kind="continue", reason="promotion_waits")

    def _act(self, name: str, rules: Rules, decision: Decision) -> None:
        """Apply what the policy decided, as far as automation allows."""
        if decision.kind not in _PERMITTED[rules.automation]:
            return
        if decision.kind == "inconclusive" and rules.on_inconclusive == "hold":
            decision = msgspec.structs.replace(decision, kind="hold")
        self._apply(name, decision, "gateway")

    def _apply(self, name: str, decision: Decision, actor: str) -> None:
        """Make one move; the plan that follows from it is due."""
        before = self.states[name]
        definition = self.engine.evidence[before.experiment].definition
        after = move(before, decision, self.rules(name).stages, definition.champion, self._clock.wall_us())
        variants = self.loaded.config.endpoints[name].variants
        artifact = self._artifacts.name(variants[before.challenger])
        with self._journal.moves(self._basis(self.loaded)) as moves:
            moves.save({name: after})
            moves.record(after, before, after, decision, actor, self.run(before.experiment).report)
            if decision.kind == "rollback":
                self._store.quarantine(name, artifact, before.experiment, self._clock.wall_us())
            elif actor != "gateway" and decision.kind in ("resume", "promote"):
                self._store.release_from_quarantine(name, artifact)
        self._publication_due = True
        self.run(before.experiment).judged = (-1, "")  # the ledger has grown
        log.warning(
            "%s: %s",
            decision.kind,
            decision.text,
            extra={"endpoint": name, "experiment": before.experiment, "reason": decision.reason},
        )

    def _write_down(self, moves: Moves, result: Reconciled) -> None:
        """What a new config makes of the releases: experiments that end, that begin, and the states to serve from."""
        for old in result.withdrawn:
            text = f"the config no longer has experiment {old.experiment}"
            decision = Decision(kind="withdraw", reason="config", text=text)
            moves.record(old, old, result.states[old.endpoint], decision, "config", self.run(old.experiment).report)
        for definition in result.starts:
            self.engine.start(definition)
            new = result.states[definition.endpoint]
            decision = Decision(kind="start", reason="config", text=new.hold or f"started with {new.stage}")
            moves.record(new, self.states.get(new.endpoint), new, decision, "config", None)
        for name, new in result.states.items():
            known = self.states.get(name)
            if known is not None and known.experiment == new.experiment and new.hold and new.hold != known.hold:
                decision = Decision(kind="hold", reason="config", text=new.hold)
                moves.record(new, known, new, decision, "config", self.run(new.experiment).report)
        moves.save(result.states)

    def _basis(self, loaded: LoadedConfig) -> Basis:
        return Basis(self.engine.step_number, self.engine.watermark, loaded.digest)

    def _publish(self) -> None:
        """Bring the plan file up to date: after a move, after an outage, or if somebody has removed it."""
        if self._publication_due or self._publisher.lost:
            self._publisher.publish(self.loaded, self._artifacts, self.states, self.engine.step_number)
            self._publication_due = False

    def _publish_or_fail(self) -> None:
        """What was decided stands; if its plan cannot be written now, the next tick does it."""
        try:
            self._publish()
        except StoreError as error:
            self._fail(error)

    def _reload(self) -> None:
        self._journal.load()
        self.engine = Engine(self._spool, self._store, self._clock)
        self._publication_due = True

    def _fail(self, error: StoreError) -> None:
        if not self.store_error:
            log.error("the store failed; decisions pause, traffic does not", exc_info=error)
        self.store_error = str(error)
