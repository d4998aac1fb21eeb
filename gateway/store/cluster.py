"""Several nodes on one store: who is there, who leads, and how far each has shipped.

Every node ships its own spools. One of them, the holder of the lease, folds what all have shipped, and decides. A lease
has an epoch that grows with every holder; what only the holder may do checks it in the same transaction
(`Store.transaction(leading=True)`), so whoever was stopped and wakes up as a former leader cannot write as one. Times
between nodes are measured by the store's clock alone.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from gateway.store.base import Store

SPOOLS = 64  # numbers of spools that a node is given at a time
NODE_BITS = 20  # of a plan's revision: each node counts its own plans, and no two ever use one number


def revision_after(after: int, node: int) -> int:
    """The next revision of a node's plans; without a look at the store, which may be away."""
    return (((after >> NODE_BITS) + 1) << NODE_BITS) | node if node else after + 1


class Node(NamedTuple):
    """A node as the store knows it."""

    number: int  # from 1
    id: str  # of its data directory
    name: str  # for people: where its admin port is
    through: int  # time up to which everything that it has is shipped, in microseconds since the epoch
    given_up: int  # watermark up to which nobody waited for it, 0 if that never happened
    config_digest: str  # of the file that it serves from
    plan_revision: int
    trouble: str  # why its log is not whole, "" if it is
    silent: float  # seconds since it reported last


class Lease(NamedTuple):
    """Who leads."""

    holder: int
    epoch: int
    seconds: float  # that are left of it
    now: float = 0.0  # by the store's clock, seconds since the epoch


class SharedStore(Store, Protocol):
    """A store of several nodes. Raises StoreError where the store cannot be reached, too."""

    def join(self, id: str, name: str, keys: str) -> int:
        """The number of a node, the same for the same `id`; from now on `node`. One that is new, or that had left,
        begins at the watermark: what it has from before is late.

        `keys` is a fingerprint of the keys and the pepper, which all nodes must share: raises StoreError if the others
        have another.
        """

    def claim_spools(self) -> int:
        """The first of `SPOOLS` numbers of spools that no other node gets."""

    def report(self, name: str, config_digest: str, plan_revision: int, trouble: str) -> None:
        """This node is there and serves from this. Raises StoreError if it was forgotten: then it must join anew."""

    def nodes(self) -> list[Node]:
        """All that ever joined and were not forgotten, by number."""

    def forget(self, node: int) -> None:
        """A node that has left for good; its facts stay."""

    def one_moment(self) -> AbstractContextManager[None]:
        """What is read inside belongs together, whatever others commit meanwhile; nothing is written."""

    def note_through(self, through: int) -> int:
        """Inside the transaction that ships: up to which time this node has shipped everything.

        Returns the time before which facts are late: up to which this node has said that it had shipped everything, or
        at which the leader has given it up. Raises StoreError if it was forgotten, or if what it shipped last is gone,
        for the server crashed: then it must start over.
        """

    def give_up(self, node: int, watermark: int) -> None:
        """Inside a leading transaction: do not wait for what this node has from before the watermark."""

    def lead(self, seconds: float) -> Lease:
        """Take the lease if it is free or has run out, extend it if it is this node's; returns whose it is now."""

    def resign(self) -> None:
        """Let another lead at once."""
