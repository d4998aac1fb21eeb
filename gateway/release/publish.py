"""Make the plan on disk the one that config and release state ask for; nothing is written when it already is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TypeGuard

import msgspec
from msgspec.structs import replace

from gateway import plan as plans
from gateway.clock import Clock
from gateway.config.load import LoadedConfig
from gateway.errors import StoreError
from gateway.plan import BackendKey, Plan, PlanError
from gateway.release.artifacts import Artifacts
from gateway.release.compile import compile_plan
from gateway.release.halts import Halt
from gateway.release.keys import Keys
from gateway.release.phases import Staged, staged
from gateway.release.sparing import halted, sparing
from gateway.release.state import ReleaseState
from gateway.store.base import PlanRow, Store
from gateway.store.cluster import revision_after
from gateway.telemetry.status_page import Model


class Publisher:
    """Writes one node's plan file. Every published revision is also a row in the store, written first."""

    def __init__(self, path: Path, store: Store, keys: Keys, clock: Clock) -> None:
        self._path = path
        self._store = store
        self._keys = keys
        self._clock = clock
        self._announced: Plan | None = None  # has its row, but not yet its file
        self._ready: Collection[BackendKey] = frozenset()  # what the current plan knows of the models it prepares
        self._stopped: frozenset[Model] = frozenset()  # as it was staged last
        self._unrecorded: list[Plan] = []  # published while the store was away
        self.current = on_disk(path)
        self._found = self.current  # of which it is not known whether it has its row
        self.held: frozenset[str] = frozenset()  # endpoints whose traffic is not yet as it is wanted
        self.due = False  # something has changed that a plan follows from

    @property
    def lost(self) -> bool:
        """Whether somebody has removed the file: a worker that starts now would have nothing to serve from."""
        return not self._path.exists()

    def awaits(self, ready: Collection[BackendKey], stopped: Collection[Model] = ()) -> bool:
        """Whether there may be something to publish, now that these of the prepared models are ready, and these are
        stopped."""
        return self.due or self.lost or ready != self._ready or self._stopped != set(stopped)

    def stage(
        self,
        loaded: LoadedConfig,
        artifacts: Artifacts,
        states: Mapping[str, ReleaseState],
        ready: Collection[BackendKey] = frozenset(),
        stopped: Collection[Model] = (),
        halts: Collection[Halt] = (),
        pinned: Collection[str] = (),
    ) -> Staged:
        """As much of what config and states ask for as the models that serve, and those that are ready, allow; without
        the challengers that are stopped. Endpoints that are pinned stay as they are.
        """
        wanted = compile_plan(loaded.config, loaded.digest, states, artifacts, self._keys.signing, self._keys.pepper)
        before = {endpoint.name: endpoint for endpoint in self.current.endpoints} if self.current else {}
        stay = {name: before[name] for name in pinned if name in before}
        wanted = replace(wanted, endpoints=tuple(stay.get(one.name, one) for one in wanted.endpoints))
        self._stopped = frozenset(stopped)
        return staged(self.current, halted(sparing(wanted, stopped), halts), ready, stopped)

    def publish(self, following: Staged, as_of: int, *, recorded: bool = True) -> Plan:
        """Make it the plan on disk, under a new revision if it differs from what is there.

        While the store is away its row is left for later (`recorded`): until then nothing that it draws has a vote.
        Raises StoreError if the row or the file cannot be written; call again, no revision is used twice.
        """
        self._adopt()
        if not _same(self.current, following.plan):
            put = self._put if recorded else self._put_unrecorded
            self.current, self._announced = put(following.plan, as_of), None
            self._ready = frozenset()  # of the new plan nobody has told anything yet
        elif self.lost:
            self._write(self.current)
        else:
            self._ready = following.ready
        self.held, self.due = following.held, False
        return self.current

    def _put(self, wanted: Plan, as_of: int) -> Plan:
        if self._announced is None or not _same(self._announced, wanted):
            self._announced = self._announce(wanted, as_of)
        self._write(self._announced)
        return self._announced

    def record(self) -> None:
        """Write the rows of plans that were published without; the one that a former process left among them."""
        if (found := self._found) is not None:
            names = [endpoint.name for endpoint in found.endpoints[:1]]
            if not all(self._store.plan_slots(found.revision, name) for name in names):
                self._unrecorded.insert(0, found)
        self._found = None
        while self._unrecorded:
            with self._store.transaction(durable=True):
                self._store.add_plan(self._row(self._unrecorded[0]))
            del self._unrecorded[0]

    def _adopt(self) -> None:
        """A person on the spot may have written a plan while this process hung: its number is used, and has no row."""
        found = on_disk(self._path)
        if found is not None and self.current is not None and found.revision > self.current.revision:
            self.current = found
            self._unrecorded.append(found)

    def _put_unrecorded(self, wanted: Plan, as_of: int) -> Plan:
        plan = replace(wanted, revision=revision_after(self._last, self._store.node), as_of=as_of)
        self._write(plan)
        self._unrecorded.append(plan)
        return plan

    @property
    def _last(self) -> int:
        """The last revision that this node has used: that of the file counts too, for a store that fell back, or was
        replaced, must not send the workers back in time."""
        announced = self._announced.revision if self._announced else 0
        return max(announced, self.current.revision if self.current else 0)

    def _announce(self, wanted: Plan, as_of: int) -> Plan:
        plan = replace(wanted, revision=self._store.next_revision(self._last), as_of=as_of)
        # Durable: what the plan draws is explained by its row, so no file may outlive it.
        with self._store.transaction(durable=True):
            self._store.add_plan(self._row(plan))
        return plan

    def _row(self, plan: Plan) -> PlanRow:
        now = self._clock.wall_us()
        return PlanRow(plan.revision, now, plan.as_of, plan.config_digest, _shares(plan), _slots(plan))

    def _write(self, plan: Plan) -> None:
        try:
            plans.write(self._path, plan)
        except OSError as error:
            raise StoreError(f"{self._path}: {error.strerror}") from error


def _same(plan: Plan | None, wanted: Plan) -> TypeGuard[Plan]:
    return plan is not None and replace(plan, revision=0, as_of=0) == wanted


def on_disk(path: Path) -> Plan | None:
    try:
        return plans.decode(path.read_bytes())
    except (OSError, PlanError):
        return None


def _shares(plan: Plan) -> str:
    widths = {
        endpoint.name: {variant: str(width) for variant, width in plans.shares(endpoint.slots).items()}
        for endpoint in plan.endpoints
    }
    return msgspec.json.encode(widths).decode()


def _slots(plan: Plan) -> str:
    """The whole split, so that the odds of every later coin can be computed from the store alone (rule R6)."""
    slots = {endpoint.name: [[slot.start, slot.variant] for slot in endpoint.slots] for endpoint in plan.endpoints}
    return msgspec.json.encode(slots).decode()
