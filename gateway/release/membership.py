"""Whether this node decides: always where it is the only one, else while it holds the lease.

A leader decides for all nodes and sees only its own config file, so nothing moves while others serve from another one.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Protocol

from gateway.clock import Clock
from gateway.errors import GatewayError, UnknownNode
from gateway.evidence.engine import AnyEngine, Engine
from gateway.evidence.shared import SharedEngine
from gateway.store.base import Store
from gateway.store.cluster import Lease, Node, SharedStore

log = logging.getLogger(__name__)

LEASE = 6.0  # seconds; who has not extended it for so long leads no more
MEET = 1.0  # seconds between two meetings: a report, a look at the others, a try for the lease
LIVING = 10.0  # seconds of silence after which a node's config is waited for no more
SKEWED = 1.0  # seconds between a node's clock and the store's of which a person should know
GONE = 86_400.0  # seconds of silence after which a node is forgotten; if it comes back it joins anew


class NodeLives(GatewayError):
    """Only a node that is silent can be forgotten."""

    status = 409
    reason = "node_lives"


class Membership(Protocol):
    """What a controller asks."""

    @property
    def shared(self) -> bool:
        """Whether other nodes may write to the store."""

    @property
    def epoch(self) -> int:
        """Of the lease, 0 while another node holds it, or nobody is known to."""

    @property
    def number(self) -> int:
        """Of this node."""

    @property
    def holder(self) -> int:
        """The node that leads, as far as is known."""

    @property
    def nodes(self) -> list[Node]:
        """All nodes, none where there is only one."""

    @property
    def clock_ahead(self) -> float:
        """Seconds, at least, that this node's clock is ahead of the store's; negative where it is behind."""

    @property
    def trouble(self) -> str:
        """Why the log of another node is not whole, in words; "" if all are."""

    def engine(self, spool_directory: Path) -> AnyEngine: ...
    def meet(self, config_digest: str, plan_revision: int, trouble: str) -> None:
        """Tell the others what this node serves from, and learn who leads; raises StoreError."""

    def disagreement(self, config_digest: str) -> str:
        """Which living nodes serve from another config, in words; "" if none does."""

    def forget(self, number: int) -> str:
        """A node that will not come back is waited for and shown no more; returns its name. Raises UnknownNode,
        NodeLives, StoreError."""

    def lost(self) -> None:
        """The store has failed, or says that another node leads: nothing is known until the next meeting."""

    def rejoin(self) -> None:
        """After the store was away: it may have forgotten this node; raises StoreError."""

    def leave(self) -> None:
        """This node goes, and everything that it had is shipped; raises StoreError."""


class Alone:
    """One node with a store of its own."""

    shared = False
    epoch = 1
    number = holder = 0
    nodes: list[Node] = []  # noqa: RUF012 - nobody ever joins
    clock_ahead = 0.0
    trouble = ""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def engine(self, spool_directory: Path) -> AnyEngine:
        return Engine(spool_directory, self._store, self._clock)

    def meet(self, config_digest: str, plan_revision: int, trouble: str) -> None:
        pass

    def disagreement(self, config_digest: str) -> str:
        return ""

    def forget(self, number: int) -> str:
        raise UnknownNode("this gateway has its store for itself: there are no other nodes")

    def lost(self) -> None:
        pass

    def rejoin(self) -> None:
        pass

    def leave(self) -> None:
        pass


class Member:
    """One of several nodes on a shared store, which it joins."""

    shared = True

    def __init__(self, store: SharedStore, id: str, name: str, fingerprint: str, clock: Clock) -> None:
        """`id` is that of the data directory, `fingerprint` that of the keys. Raises StoreError."""
        self._store = store
        self._who = id, name, fingerprint
        self._name = name
        self._clock = clock
        self._meet_at = clock.monotonic()
        self._told: tuple[str, int, str] | None = None
        self._lease = Lease(0, 0, 0.0)
        self._leads_until = 0.0  # monotonic: the lease may be another's from then on
        self.nodes: list[Node] = []
        self.clock_ahead = 0.0
        self.rejoin()

    def engine(self, spool_directory: Path) -> AnyEngine:
        return SharedEngine(spool_directory, self._store, self._clock)

    @property
    def number(self) -> int:
        return self._store.node

    @property
    def epoch(self) -> int:
        ours = self._lease.holder == self._store.node and self._clock.monotonic() < self._leads_until
        return self._lease.epoch if ours else 0

    @property
    def trouble(self) -> str:
        ill = [node for node in self.nodes if node.trouble and node.number != self._store.node]
        return "; ".join(f"node {node.number}: {node.trouble}" for node in ill)

    @property
    def holder(self) -> int:
        return self._lease.holder

    def meet(self, config_digest: str, plan_revision: int, trouble: str) -> None:
        now, told = self._clock.monotonic(), (config_digest, plan_revision, trouble)
        if now < self._meet_at and self._told == told:
            return
        self._store.report(self._name, config_digest, plan_revision, trouble)
        asked = self._clock.wall_us()
        before, self._lease = self._lease, self._store.lead(LEASE)
        self._compare_clocks(asked, self._lease.now, self._clock.wall_us())
        # Counted from before it was asked for: by the store's clock it lasts longer.
        self._leads_until = now + min(LEASE, self._lease.seconds)
        self.nodes = self._store.nodes()
        self._meet_at, self._told = now + MEET, told
        if self.epoch:
            self._forget_who_is_gone()
        if (before.holder, before.epoch) != (self._lease.holder, self._lease.epoch):
            who = "this node leads" if self.epoch else f"node {self._lease.holder} leads"
            log.warning("%s (epoch %d)", who, self._lease.epoch)

    def _compare_clocks(self, asked_us: int, there: float, answered_us: int) -> None:
        """The store looked at its clock between the question and the answer: what that does not explain is skew."""
        before = self.clock_ahead
        self.clock_ahead = max(0.0, asked_us / 1e6 - there) or min(0.0, answered_us / 1e6 - there)
        if abs(self.clock_ahead) >= SKEWED > abs(before):
            log.warning("this node's clock and the store's differ by %.1f s at least", abs(self.clock_ahead))

    def disagreement(self, config_digest: str) -> str:
        others = [node for node in self.nodes if node.silent < LIVING and node.config_digest != config_digest]
        if not others:
            return ""
        names = ", ".join(f"{node.number} ({node.name})" for node in others)
        return f"node{'s' * (len(others) > 1)} {names} still with another config file"

    def forget(self, number: int) -> str:
        node = next((node for node in self._store.nodes() if node.number == number), None)
        if node is None:
            raise UnknownNode(f"there is no node {number}")
        if node.silent < LIVING:
            raise NodeLives(f"node {number} ({node.name}) is there: stop it, and it is forgotten when it leaves")
        self._store.forget(number)
        self.nodes = self._store.nodes()
        return node.name

    def _forget_who_is_gone(self) -> None:
        """Whoever left without a word, as when a machine is taken away, each time with another data directory."""
        for node in self.nodes:
            if node.silent > GONE:
                log.warning("node %d (%s) has said nothing for a day: it is forgotten", node.number, node.name)
                self._store.forget(node.number)

    def lost(self) -> None:
        self._lease = Lease(0, 0, 0.0)
        self._meet_at = self._clock.monotonic()

    def rejoin(self) -> None:
        self._store.join(*self._who)

    def leave(self) -> None:
        if self.epoch:
            self._store.resign()
        self._store.forget(self._store.node)
