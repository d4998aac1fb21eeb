"""The control loop: look, fold, judge, decide, publish. One tick does each once, and writes once.

The controller owns what may change a split. It never answers traffic; when it is gone, the last plan serves on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from gateway.clock import Clock
from gateway.config.load import LoadedConfig
from gateway.config.schema import Endpoint
from gateway.errors import StoreError, UnknownEndpoint
from gateway.evidence.engine import Engine
from gateway.evidence.verdict import Report, judge
from gateway.release import compile as compiled
from gateway.release.keys import Keys
from gateway.release.kill import KillRule
from gateway.release.models import check_models
from gateway.release.policy import Rules, View, decide
from gateway.release.publish import Publisher
from gateway.release.reconcile import reconcile
from gateway.release.stages import move
from gateway.release.state import Decision, Kind, ReleaseState, decode, encode
from gateway.store.base import LedgerRow, Store
from gateway.telemetry import metrics
from gateway.telemetry.status_page import PageReading, PageSet, Series, Word

log = logging.getLogger(__name__)

_PERMITTED: dict[str, frozenset[Kind]] = {
    "off": frozenset(),
    "recommend": frozenset(),
    "rollback_only": frozenset({"rollback"}),
    "full": frozenset({"advance", "promote", "rollback", "inconclusive"}),
}


@dataclass(slots=True)
class _Run:
    """What the controller remembers of an experiment between two ticks; a restart may forget it."""

    kill: KillRule = field(default_factory=KillRule)
    report: Report | None = None
    decision: Decision | None = None
    promotable_since: int = 0


class Controller:
    """Drives every release of one node. Not thread-safe: its owner calls one method at a time."""

    def __init__(self, loaded: LoadedConfig, store: Store, data_dir: Path, keys: Keys, clock: Clock) -> None:
        self.loaded = loaded
        self.store = store
        self._data_dir = data_dir
        self._clock = clock
        self._artifacts = compiled.Artifacts()
        self._publisher = Publisher(data_dir / "plan.json", store, keys, self._artifacts, clock)
        self._runs: dict[str, _Run] = {}
        self._versions: dict[str, int] = {}
        self.states: dict[str, ReleaseState] = {}
        self.pages = PageSet(data_dir / "status")
        self.living: list[PageReading] = []
        self.totals: dict[Series, tuple[int, ...]] = {}
        self._lost_before = -1
        self.store_error = ""
        self.engine = self._load()
        self.take(loaded)

    @property
    def plan_revision(self) -> int:
        return self._publisher.current.revision if self._publisher.current else 0

    def run(self, experiment: str) -> _Run:
        return self._runs.setdefault(experiment, _Run())

    def take(self, loaded: LoadedConfig) -> None:
        """Serve from a config. Raises ConfigError if it contradicts what has happened; then nothing changed."""
        now = self._clock.wall_us()
        definitions = {id: evidence.definition for id, evidence in self.engine.evidence.items()}
        result = reconcile(str(loaded.path), loaded.config, self.states, definitions, self._quarantined, now)
        check_models(loaded, self._artifacts)
        wanted = self._publisher.compile(loaded, result.states)
        with self.store.transaction():
            for definition in result.starts:
                self.engine.start(definition)
                state = result.states[definition.endpoint]
                self._record(state, state, "start", "config", f"started with {state.stage}", "config", loaded.digest)
            versions = self._save(result.states)
        self._versions |= versions
        self.states = self.states | result.states
        self.loaded = loaded
        self._publisher.publish(wanted, self.engine.step_number)

    def tick(self) -> None:
        """One round. A failing store pauses decisions and says so; the next tick starts over from the store."""
        self.living = self.pages.read()
        self.totals = self.pages.totals(self.living)
        try:
            if self.store_error:
                self.engine = self._load()
            self.engine.step()
            for name in self.loaded.config.endpoints:
                if self.states[name].experiment:
                    self._judge(name)
            self.store_error = ""
        except StoreError as error:
            if not self.store_error:
                log.exception("the store failed; decisions pause, traffic does not")
            self.store_error = str(error)

    def command(self, endpoint: str, kind: Kind, actor: str, text: str) -> None:
        """What a person asks for: hold, resume, promote, rollback. Raises IllegalMove, UnknownEndpoint."""
        if endpoint not in self.loaded.config.endpoints or not self.states[endpoint].experiment:
            raise UnknownEndpoint(f"there is no experiment at {endpoint!r}")
        self._apply(endpoint, Decision(kind=kind, reason="manual", text=text or f"asked for by {actor}"), actor)

    def ledger(self) -> list[LedgerRow]:
        return self.store.ledger()

    def decisions_of(self, experiment: str) -> dict[str, int]:
        """Rows of the ledger by kind."""
        return self.store.decisions_by_kind(experiment)

    def rules(self, endpoint: str) -> Rules:
        return compiled.rules(self.loaded.config.endpoints[endpoint])

    def _load(self) -> Engine:
        releases = self.store.releases()
        self._versions = {name: version for name, (version, _) in releases.items()}
        self.states = {name: decode(state) for name, (_, state) in releases.items()}
        return Engine(self._data_dir / "spool", self.store, self._clock)

    def _judge(self, name: str) -> None:
        state = self.states[name]
        endpoint = self.loaded.config.endpoints[name]
        run = self.run(state.experiment)
        evidence = self.engine.evidence[state.experiment]
        run.report = judge(
            evidence,
            compiled.thresholds(endpoint),
            self.engine.units(state.experiment),
            self.engine.folded(state.experiment),
        )
        if state.status != "running":
            return
        view = View(
            definition=evidence.definition,
            rules=compiled.rules(endpoint),
            state=state,
            report=run.report,
            now_us=self._clock.wall_us(),
            kill=self._observe(state, run),
            facts_lost=self._facts_lost(),
        )
        run.decision = decision = self._ripened(run, decide(view))
        self._act(name, view, decision)

    def _act(self, name: str, view: View, decision: Decision) -> None:
        """Apply what the policy decided, as far as automation and a person's hold allow."""
        permitted = _PERMITTED[view.rules.automation]
        if decision.kind in ("continue", "hold") or decision.kind not in permitted:
            return
        if view.state.hold and decision.kind != "rollback":
            return
        if decision.kind == "inconclusive" and view.rules.on_inconclusive == "hold":
            decision = msgspec.structs.replace(decision, kind="hold")
        self._apply(name, decision, "gateway")

    def _ripened(self, run: _Run, decision: Decision) -> Decision:
        """Promotion waits until every living spool is folded past the moment of the verdict (rule R3)."""
        if decision.kind != "promote":
            run.promotable_since = 0
            return decision
        run.promotable_since = run.promotable_since or self._clock.wall_us()
        if self.engine.seen_through >= run.promotable_since:
            return decision
        return msgspec.structs.replace(decision, kind="continue", reason="promotion_waits")

    def _apply(self, name: str, decision: Decision, actor: str) -> None:
        before = self.states[name]
        definition = self.engine.evidence[before.experiment].definition
        stages = self.rules(name).stages
        after = move(before, decision, stages, definition.champion, self._clock.wall_us())
        wanted = self._publisher.compile(self.loaded, self.states | {name: after})
        with self.store.transaction():
            versions = self._save({name: after})
            self._record(before, after, decision.kind, decision.reason, decision.text, actor, self.loaded.digest)
            if decision.kind == "rollback":
                self.store.quarantine(
                    name, self._artifact(name, before.challenger), before.experiment, self._clock.wall_us()
                )
        self._versions |= versions
        self.states[name] = after
        self._publisher.publish(wanted, self.engine.step_number)
        log.warning(
            "%s: %s",
            decision.kind,
            decision.text,
            extra={"endpoint": name, "experiment": before.experiment, "reason": decision.reason},
        )

    def _save(self, states: Mapping[str, ReleaseState]) -> dict[str, int]:
        """Write states that differ from what is stored; inside a transaction. Returns the new versions."""
        return {
            name: self.store.save_release(name, self._versions.get(name, 0), encode(state))
            for name, state in states.items()
            if self.states.get(name) != state
        }

    def _record(
        self,
        before: ReleaseState,
        after: ReleaseState,
        kind: str,
        reason: str,
        text: str,
        actor: str,
        config_digest: str,
    ) -> None:
        run = self.run(after.experiment)
        body: dict[str, Any] = {
            "from": {"status": before.status, "stage": before.stage, "champion": before.champion},
            "to": {"status": after.status, "stage": after.stage, "champion": after.champion},
            "actor": actor,
            "reason": reason,
            "text": text,
            "config_digest": config_digest,
            "watermark": self.engine.watermark,
            "evidence": msgspec.to_builtins(run.report) if run.report else None,
        }
        self.store.append_ledger(
            self._clock.wall_us(), self.engine.step_number, after.endpoint, after.experiment, kind, body
        )

    def _observe(self, state: ReleaseState, run: _Run) -> str:
        champion, challenger = (
            (ok + bad, bad)
            for variant in (state.champion, state.challenger)
            for ok, bad in [
                tuple(
                    self.totals.get(
                        (metrics.COMPLETIONS.name, (state.endpoint, state.experiment, variant, result)), (0,)
                    )[0]
                    for result in ("ok", "error")
                )
            ]
        )
        return run.kill.observe(champion, challenger)

    def _facts_lost(self) -> bool:
        """Whether assignments were lost since this process began to watch."""
        lost = self.totals.get((metrics.SPOOL_FAILURES.name, ("requests",)), (0,))[0]
        if self._lost_before < 0:
            self._lost_before = lost
        return lost > self._lost_before

    def workers_on(self, revision: int) -> bool:
        """Whether every living worker serves from this plan or a later one."""
        return all(page.word(Word.PLAN_REVISION) >= revision for page in self.living)

    def _quarantined(self, name: str, endpoint: Endpoint, variant: str) -> str | None:
        return self.store.quarantined(name, _artifact_of(endpoint, variant, self._artifacts))

    def _artifact(self, name: str, variant: str) -> str:
        return _artifact_of(self.loaded.config.endpoints[name], variant, self._artifacts)


def _artifact_of(endpoint: Endpoint, variant: str, artifacts: compiled.Artifacts) -> str:
    plan = endpoint.variants[variant]
    return artifacts.read(plan.onnx)[0] if plan.onnx else str(plan.url)
