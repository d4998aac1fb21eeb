"""The control loop: look, fold, judge, decide, publish. One tick does each once, and writes once.

The controller owns what may change a split. It never answers traffic; when it is gone, the last plan serves on.
While the store fails, nothing is decided and the last plan serves on, too, but for what needs no statistics: the kill
rule and models that crash their workers take challengers to 0 % on this node (`halts`), and the rollback is written
with the first tick that finds the store again.

Where several nodes share a store, each has a controller. The one that leads folds and decides; all of them publish what
is decided, act on the kill rule, and write what a person asks of them. Two that write at once are kept apart by the
version of a release's state: the later one is told so, and looks again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from gateway.clock import Clock
from gateway.config.load import LoadedConfig
from gateway.errors import ConfigError, GatewayError, LeaseLost, Overtaken, StoreError, UnknownEndpoint
from gateway.evidence.engine import AnyEngine
from gateway.plan import Plan, models
from gateway.release.artifacts import Artifacts
from gateway.release.halts import Halt, Halts
from gateway.release.health import Health
from gateway.release.judging import Judge
from gateway.release.keys import Keys
from gateway.release.membership import Alone, Membership
from gateway.release.models import read_models
from gateway.release.phases import arriving
from gateway.release.policy import permitted
from gateway.release.publish import Publisher
from gateway.release.releases import Releases
from gateway.release.runs import Run
from gateway.release.sparing import models_of
from gateway.release.stages import IllegalMove
from gateway.release.state import Decision, Kind, ReleaseState
from gateway.release.view import Rules
from gateway.store.base import LedgerRow, Store
from gateway.telemetry.chain import Chain

log = logging.getLogger(__name__)


class Controller:
    """Drives every release of one node. Not thread-safe: its owner calls one method at a time.

    `as_served` is for a start in front of model files that are refused: the models of the plan on disk serve on.
    """

    def __init__(
        self,
        loaded: LoadedConfig,
        store: Store,
        data_dir: Path,
        keys: Keys,
        clock: Clock,
        as_served: bool = False,
        membership: Membership | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._releases = Releases(loaded, store, data_dir, clock, membership or Alone(store, clock))
        self._judge = Judge(self._releases, clock)
        self._publisher = Publisher(data_dir / "plan.json", store, keys, clock)
        self._prune_due = True
        self.chain = Chain()
        self._untaken_since: float | None = None  # when the plan was written that not all workers serve yet
        self.store_error = ""
        self.health.look()
        self.halts.look()  # before anything is published
        serving = self.plan if as_served else None
        read = self.artifacts.as_served(loaded.config, serving) if serving else None
        try:
            self.take(loaded, read)
        except ConfigError as error:
            if not (self.membership.shared and self.plan):
                raise
            # Other nodes have gone on with another file: this one serves what it served, ships, and says why.
            self._releases.settling.pin(loaded, read or read_models(loaded, self.artifacts), error)

    @property
    def loaded(self) -> LoadedConfig:
        return self._releases.loaded

    @property
    def states(self) -> Mapping[str, ReleaseState]:
        return self._releases.states

    @property
    def engine(self) -> AnyEngine:
        return self._releases.engine

    @property
    def health(self) -> Health:
        return self._releases.health

    @property
    def halts(self) -> Halts:
        return self._releases.halts

    @property
    def membership(self) -> Membership:
        return self._releases.membership

    @property
    def plan(self) -> Plan | None:
        """What the workers serve from, or are about to."""
        return self._publisher.current

    @property
    def plan_revision(self) -> int:
        return self.plan.revision if self.plan else 0

    @property
    def trouble(self) -> str:
        """Why the log of this node is not whole, "" if it is."""
        return self._releases.trouble

    @property
    def artifacts(self) -> Artifacts:
        return self._releases.artifacts

    def run(self, experiment: str) -> Run:
        return self._releases.run(experiment)

    def rules(self, endpoint: str) -> Rules:
        return self._releases.rules(endpoint)

    def ledger(self) -> list[LedgerRow]:
        return self._store.ledger()

    def tick(self) -> None:
        """One round. A failing store pauses decisions and says so; the next tick starts over from the store."""
        self.health.look()
        self._note_taken()
        if self.halts.look():
            self._publisher.due = True
        self._judge.look()
        try:
            if self.store_error:
                self._start_over()
            self._publisher.record()
            self.membership.meet(self.loaded.common, self.plan_revision, self._releases.trouble)
            self.engine.epoch = self.membership.epoch
            self.engine.step()
            shipped = self._note_shipped()
            if self._releases.follow() | self._releases.write_halts():
                self._publisher.due = True
            self._judge_all()
            if shipped is not None:
                self.chain.decided.observe((self._clock.monotonic() - shipped) * 1e6)
            self._publish()
        except (LeaseLost, Overtaken) as error:
            log.warning("%s; looking again", error)
            self.store_error = str(error)  # so that the next round starts over
        except StoreError as error:
            self._fail(error)
        except (GatewayError, OSError) as error:
            # Whatever it is, it must not end the process: the next round starts over from what is written down.
            log.exception("a round of the control loop failed")
            self.store_error = f"a round failed: {error}"
        else:
            self.store_error = ""

    def take(self, loaded: LoadedConfig, read: Artifacts | None = None) -> None:
        """Serve from a config. Raises ConfigError if it contradicts what has happened; then nothing changed.

        Its model files are read now, unless they have been (`read`): whoever has a loop to keep going reads them aside.
        Raises StoreError if it could not be written down; then the config may be taken again.
        """
        artifacts = read or read_models(loaded, self.artifacts)
        try:
            self._releases.take(loaded, artifacts)
        except StoreError as error:
            self._fail(error)  # the engine's memory may be ahead of the store
            raise
        endpoints = loaded.config.endpoints.items()
        self.health.crashes.keep({model for name, one in endpoints for model in models_of(name, one, artifacts)})
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
        self._releases.apply(endpoint, self._releases.restricted(endpoint, decision), actor)
        self._publisher.due = True
        if kind in ("resume", "promote"):
            self.health.crashes.forgive(endpoint)
            self.halts.forgive(endpoint)
        self._publish_or_fail()

    def forget_node(self, number: int, actor: str, text: str) -> None:
        """A person knows that a node will not come back. Raises UnknownNode, NodeLives, StoreError."""
        name = self.membership.forget(number)
        log.warning("node %d (%s) is forgotten: %s: %s", number, name, actor, text)

    def prune(self) -> None:
        """Delete copies of models that neither the plan, nor the config, nor a living worker needs any more.

        For times when nobody takes in a config: its copies would seem to be needed by nobody.
        """
        if self._prune_due and self.plan is not None and self.health.serve_from(self.plan):
            self.artifacts.prune({one.variant.digest for one in (*models(self.plan.endpoints), *self.plan.prepare)})
            self._prune_due = False

    def _judge_all(self) -> None:
        for name in self.loaded.config.endpoints:
            if self.states[name].experiment and self._judge.judge(name, loading=self._loading(name)):
                self._publisher.due = True

    def _note_shipped(self) -> float | None:
        """When facts came into the store just now."""
        if self.engine.ship_delay_us is None:
            return None
        self.chain.shipped.observe(self.engine.ship_delay_us)
        return self._clock.monotonic()

    def _note_taken(self) -> None:
        """Looked at once a round, so it is told up to a round later than it was."""
        if self._untaken_since is not None and self.health.living and self.health.serve_from(self.plan):
            self.chain.taken.observe((self._clock.monotonic() - self._untaken_since) * 1e6)
            self._untaken_since = None

    def _loading(self, name: str) -> bool:
        return name in self._publisher.held

    def _publish(self, *, recorded: bool = True) -> None:
        """Bring the plan file up to date: after a move, an outage, or a load, or if somebody has removed it."""
        ready, stopped = self.health.loaded(self.plan), self.health.crashes.stopped
        if not self._publisher.awaits(ready, stopped):
            return
        following = self._publisher.stage(
            self.loaded, self.artifacts, self.states, ready, stopped, self.halts.all, self._releases.settling.pinned
        )
        if recorded:
            self._releases.restart_clocks(arriving(self.plan, following))
        before = self.plan_revision
        self._publisher.publish(following, self.engine.step_number, recorded=recorded)
        if self.plan_revision != before:
            self._untaken_since = self._clock.monotonic()
            if (decided_at := self._releases.moved_elsewhere()) is not None:
                self.chain.followed.observe(self._clock.wall_us() - decided_at)
        self._prune_due = True

    def _publish_or_fail(self) -> None:
        """What was decided stands; if its plan cannot be written now, the next tick does it."""
        try:
            self._publish()
        except StoreError as error:
            self._fail(error)

    def _start_over(self) -> None:
        self._releases.start_over()
        self._publisher.due = True

    def _fail(self, error: StoreError) -> None:
        if not self.store_error:
            log.error("the store failed; decisions pause, traffic does not", exc_info=error)
        self.store_error = str(error)
        self.membership.lost()
        self._halt()

    def _halt(self) -> None:
        """Whoever fails plainly, or brings workers down, gets nothing on this node, although nobody can write it down
        now."""
        for name, kills in self._judge.kills.items():
            state = self.states[name]
            for variant, why in kills.items():
                halt = Halt.of_rule(name, state.experiment, variant, why, self._clock.wall_us())
                if permitted(self.rules(name).automation, halt.decision(state)) and self.halts.add(halt):
                    self._publisher.due = True
        try:
            self._publish(recorded=False)
        except StoreError as error:
            log.error("the plan without what is halted cannot be written: %s", error)  # noqa: TRY400
