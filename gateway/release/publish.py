"""Make the plan on disk the one that config and release state ask for; nothing is written when it already is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec.structs import replace

from gateway import plan as plans
from gateway.clock import Clock
from gateway.config.load import LoadedConfig
from gateway.plan import Plan, PlanError
from gateway.release import compile as compiled
from gateway.release.keys import Keys
from gateway.release.state import ReleaseState
from gateway.store.base import PlanRow, Store


class Publisher:
    """Writes one node's plan file. Every published revision is also a row in the store, written first."""

    def __init__(self, path: Path, store: Store, keys: Keys, artifacts: compiled.Artifacts, clock: Clock) -> None:
        self._path = path
        self._store = store
        self._keys = keys
        self._artifacts = artifacts
        self._clock = clock
        self.current = _on_disk(path)

    def compile(self, loaded: LoadedConfig, states: Mapping[str, ReleaseState]) -> Plan:
        """The plan that config and states ask for, without a revision; raises ModelError."""
        return compiled.plan(
            loaded.config, loaded.digest, states, self._artifacts, self._keys.signing, self._keys.pepper, 0, 0
        )

    def publish(self, wanted: Plan, as_of: int) -> Plan:
        """Make `wanted` the plan on disk, under a new revision if it differs from what is there."""
        if self.current is not None and replace(self.current, revision=0, as_of=0) == wanted:
            return self.current
        last = self._store.last_plan()
        plan = replace(wanted, revision=last.revision + 1 if last else 1, as_of=as_of)
        with self._store.transaction():
            self._store.add_plan(
                PlanRow(plan.revision, self._clock.wall_us(), as_of, plan.config_digest, _shares(plan))
            )
        plans.write(self._path, plan)
        self.current = plan
        return plan


def _on_disk(path: Path) -> Plan | None:
    try:
        return plans.decode(path.read_bytes())
    except (FileNotFoundError, PlanError):
        return None


def _shares(plan: Plan) -> str:
    widths = {
        endpoint.name: {variant: str(width) for variant, width in plans.shares(endpoint.slots).items()}
        for endpoint in plan.endpoints
    }
    return msgspec.json.encode(widths).decode()
