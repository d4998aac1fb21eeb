"""What a node does about harm while it has no store to build its control plane on: nothing but the plan is known.

The kill rule reads status pages, so a challenger that fails plainly, or that brings workers down, gets nothing on this
node, as it would with a control plane (`halts`); a control plane that is there at last takes plan and halts over, and
writes the rollback down. Nothing else moves.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

from msgspec.structs import replace

from gateway import plan as plans
from gateway.clock import Clock
from gateway.config.schema import Config
from gateway.evidence.report import WATCH
from gateway.plan import EndpointPlan, Plan
from gateway.release.halts import Halt, Halts
from gateway.release.health import Health
from gateway.release.kill import KillRules
from gateway.release.policy import permitted
from gateway.release.publish import on_disk
from gateway.release.sparing import halted, sparing
from gateway.release.state import Decision
from gateway.store.cluster import NODE_BITS, revision_after
from gateway.telemetry.status_page import Model

log = logging.getLogger(__name__)


class Guard:
    """Watches one node's workers. Owns the pages until a control plane does."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._rules: dict[tuple[str, str], KillRules] = {}  # by endpoint and experiment
        self.health = Health(config.data_dir / "status", clock)
        self.halts = Halts(config.data_dir)

    def take(self, config: Config) -> None:
        """The file has been read again: what it allows may have changed."""
        self._config = config

    def tick(self) -> None:
        """One look at the workers; the plan is written if somebody has to go."""
        self.health.look()
        self.halts.look()
        data_dir = self._config.data_dir
        plan = on_disk(data_dir / "plan.json")
        if plan is None:
            return
        for endpoint in plan.endpoints:
            if endpoint.experiment and endpoint.stage != WATCH:
                self._judge(endpoint)
        try:
            write_without(data_dir, plan, self.halts.all, self.health.crashes.stopped)
        except OSError as error:
            log.error("the plan without what is stopped cannot be written: %s", error)  # noqa: TRY400

    def _judge(self, endpoint: EndpointPlan) -> None:
        about = endpoint.name, endpoint.experiment
        champion = endpoint.champion.name
        challengers = [one.name for one in endpoint.variants if one.name != champion]
        kills = self._rules.setdefault(about, KillRules()).look(*self.health.compared(*about, champion, challengers))
        if self._may(endpoint.name):
            for variant, why in kills.items():
                self.halts.add(Halt.of_rule(*about, variant, why, self._clock.wall_us()))

    def _may(self, endpoint: str) -> bool:
        """Whether the file lets the gateway roll back by itself."""
        found = self._config.endpoints.get(endpoint)
        if found is None or found.experiment is None:
            return False
        return permitted(found.experiment.automation, Decision(kind="rollback", reason="kill_rule", text=""))


def write_without(data_dir: Path, plan: Plan, halts: Collection[Halt], stopped: Collection[Model] = ()) -> Plan:
    """Write a node's plan without what is stopped, as a control plane would that is not there; it takes it over when it
    is. Nothing is written if nothing is to go. Raises OSError."""
    spared = halted(sparing(plan, stopped), halts)
    if spared == plan:
        return plan
    node = plan.revision & ((1 << NODE_BITS) - 1) if (data_dir / "node.id").exists() else 0
    following = replace(spared, revision=revision_after(plan.revision, node))
    plans.write(data_dir / "plan.json", following)
    return following
