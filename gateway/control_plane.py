"""The control plane without its ports: config and store in, plan out. Tests with a fake clock drive it directly."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from gateway.admin import samples, views
from gateway.clock import Clock
from gateway.config.load import LoadedConfig, load, parse
from gateway.config.places import filled
from gateway.config.schema import Config
from gateway.errors import ConfigError, GatewayError, StoreError, StoreUnavailable, UnknownEndpoint
from gateway.forgetting.erasure import Asked
from gateway.forgetting.forgetting import Forgetting
from gateway.numbers import SpoolNumbers
from gateway.release.controller import Controller
from gateway.release.intake import Intake, ReloadStatus
from gateway.release.keys import Keys, expect_own, given, load_or_create
from gateway.release.membership import Member, Membership
from gateway.release.state import Kind
from gateway.release.upkeep import Upkeep
from gateway.store.base import Store
from gateway.store.cluster import SharedStore
from gateway.store.keeping import Keeping
from gateway.store.open import open_store
from gateway.telemetry.exposition import GatewayCollector, render

log = logging.getLogger(__name__)

VIEW_SHARE = 20  # times what a snapshot took, until the next
LAST_GOOD = "config.last-good.yaml"  # in the data directory


class StoreAway(StoreError):
    """A store that other nodes may be using does not answer yet: it may be waited for, and the last plan serves on."""

    def __init__(self, why: str, config: Config, *, looked: bool) -> None:
        """`looked`: status pages were read before that was found out, and those of the dead folded."""
        super().__init__(why)
        self.config = config
        self.looked = looked


class ControlPlane:
    """Everything the control process is made of, but the HTTP servers: fake-clock tests drive this directly.

    `poll` may be called from one thread at a time. `name` is what other nodes call this one.
    """

    def __init__(self, loaded: LoadedConfig, clock: Clock, as_served: bool = False, name: str = "") -> None:
        self._clock = clock
        config = loaded.config
        for folder in ("spool", "status"):
            (config.data_dir / folder).mkdir(parents=True, exist_ok=True)
        keys = _keys(config)
        try:
            self.store, membership, claim = _opened(config, keys, name, clock)
        except StoreError as error:
            raise _away(config, error) from error
        try:
            self.upkeep = Upkeep(config, self.store, clock, claim)
            self.upkeep.grant()
            self.controller = Controller(loaded, self.store, config.data_dir, keys, clock, as_served, membership)
        except GatewayError as error:
            self.store.close()
            raise _away(config, error, looked=True) from error
        self.forgetting = Forgetting(config, cast("Keeping", self.store), keys.pepper, clock)
        self.intake = Intake(self.controller, config.data_dir / LAST_GOOD, clock)
        self._next_view = 0.0
        self.snapshot: dict[str, Any] = self._view()

    def poll(self) -> None:
        """One round: tick, look at the config, take a new snapshot."""
        self.controller.tick()
        self.intake.look()
        if self.intake.idle:
            self.controller.prune()
        self._keep_up()
        if self._clock.monotonic() >= self._next_view:
            self.snapshot = self._view()

    def command(self, endpoint: str, kind: Kind, actor: str, text: str, variant: str = "") -> None:
        self.controller.command(endpoint, kind, actor, text, variant)
        self.snapshot = self._view()

    def forget_node(self, number: int, actor: str, text: str) -> None:
        self.controller.forget_node(number, actor, text)
        self.snapshot = self._view()

    def erase(self, unit: str, endpoint: str, actor: str, text: str) -> Asked:
        """Have a unit forgotten; "" for all endpoints. Raises UnknownEndpoint, StoreError."""
        if endpoint and endpoint not in self.controller.loaded.config.endpoints:
            raise UnknownEndpoint(f"there is no endpoint {endpoint!r}")
        return self.forgetting.ask(unit, endpoint, actor, text)

    def reload(self) -> ReloadStatus:
        """Look at the file now. Model files that have changed may still be read when this returns."""
        self.intake.reload()
        self.snapshot = self._view()
        return self.intake.status

    def collector(self) -> GatewayCollector:
        """What `/metrics` says, as of now; to be rendered anywhere."""
        pages = self.controller.health.pages
        totals = samples.told_of_upstreams(pages.totals(pages.read()), self.controller.plan)
        told = list(samples.samples(self.controller, self.intake.status, self._clock.wall_us()))
        told += [*self.upkeep.samples(), *self.forgetting.samples()]
        return GatewayCollector(lambda: (totals, told))

    def exposition(self, accept: str) -> tuple[bytes, str]:
        return render(self.collector(), accept)

    def refuse(self, error: ConfigError) -> None:
        """The file on disk is not what is served from."""
        self.intake.refuse(error)
        self.snapshot = self._view()

    def ship_the_rest(self) -> None:
        """After the workers have gone: fold what they left."""
        self.controller.tick()

    @property
    def behind(self) -> bool:
        """Whether the next round has work already."""
        return self.controller.engine.behind and not self.controller.store_error

    @property
    def everything_shipped(self) -> bool:
        return self.controller.engine.everything_read

    def leave(self) -> None:
        """The node goes: where others share the store, they need not wait for it."""
        try:
            if self.everything_shipped:
                self.controller.membership.leave()
        except StoreError as error:
            log.warning("the other nodes are not told that this one leaves: %s", error)
        self.store.close()

    def close(self) -> None:
        self.store.close()

    def _keep_up(self) -> None:
        """While the store fails, nothing that rests on it."""
        if not self.controller.store_error:
            self.upkeep.take(self.controller.loaded.config)
            self.forgetting.take(self.controller.loaded.config)
            engine = self.controller.engine
            try:
                self.upkeep.tick()
                if engine.leading and not engine.behind:
                    self.forgetting.tick(engine)
            except StoreError as error:
                log.warning("upkeep waits for the store: %s", error)

    def _view(self) -> dict[str, Any]:
        """Of hundreds of releases it takes long: a twentieth of the time goes into it, at the most."""
        began = self._clock.monotonic()
        view = views.status(self.controller, self.intake.status, self._clock.wall_us())
        now = self._clock.monotonic()
        self._next_view = now + VIEW_SHARE * (now - began)
        return view


def started(path: Path, last_good: Path, clock: Clock, name: str = "") -> ControlPlane:
    """Serving from the file; after a crash in front of files that are refused, from what was served before.

    Raises ConfigError, StoreError; StoreAway where it is worth another try.
    """
    try:
        return ControlPlane(load(path), clock, name=name)
    except ConfigError as error:
        if not last_good.exists():
            raise
        plane = ControlPlane(parse(last_good.read_bytes(), path, files=False), clock, as_served=True, name=name)
        plane.refuse(error)
        return plane


def _away(config: Config, error: GatewayError, *, looked: bool = False) -> GatewayError:
    """What only time can mend is waited for; another schema or other keys are somebody's to mend."""
    return (
        StoreAway(str(error), config, looked=looked) if config.shared and isinstance(error, StoreUnavailable) else error
    )


def _keys(config: Config) -> Keys:
    own = config.data_dir / "keys.json"
    if config.keys is None:
        return load_or_create(own)
    signing = [filled(template, os.environ) for template in config.keys.signing]
    keys = given(signing, filled(config.keys.pepper, os.environ))
    expect_own(own, keys)
    return keys


def _opened(
    config: Config, keys: Keys, name: str, clock: Clock
) -> tuple[Store, Membership | None, Callable[[], int] | None]:
    """The store; and of one that nodes share, the membership of this one and how it gets numbers of spools."""
    if not config.shared:
        config.store_path.parent.mkdir(parents=True, exist_ok=True)
        if (config.data_dir / "node.id").exists():
            log.warning(
                "%s was a node of a store that others share; it goes on with %s and what that says",
                config.data_dir,
                config.store,
            )
        own = open_store(config.store)
        try:
            return own, None, _numbers_above(own, config.data_dir) if config.store_elsewhere else None
        except StoreError:
            own.close()
            raise
    store = cast("SharedStore", open_store(config.store))
    try:
        member = Member(store, _node_id(config.data_dir), name, keys.fingerprint, clock)
    except StoreError:
        store.close()
        raise
    return store, member, store.claim_spools


def _numbers_above(store: Store, data_dir: Path) -> Callable[[], int]:
    """How a node that has its store for itself gets numbers of spools that the store does not know from another life:
    its directory may be new, or an old copy."""
    numbers = SpoolNumbers(data_dir)
    known = max((stream.spool for stream in store.streams()), default=0)
    try:
        numbers.withdraw(known)
    except (OSError, ValueError) as error:
        raise StoreError(f"numbers of spools cannot be kept: {error}") from error
    return lambda: max(numbers.end, known + 1)


def _node_id(data_dir: Path) -> str:
    """Who this node is: its data directory, for that holds its spools."""
    path = data_dir / "node.id"
    if not path.exists():
        temporary = path.with_suffix(".new")
        temporary.write_text(secrets.token_hex(16))
        temporary.replace(path)
    return path.read_text().strip()
