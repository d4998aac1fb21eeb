"""What a node serves from while what its file asks for is not yet what has happened. Pure.

Where several nodes share a store, only the leader writes what follows from an edit, and only when all nodes have the
edited file. Until then each node serves what the store says, as far as its own file still knows it; where it does not,
the endpoint stays as the plan on disk has it, and on a node that has none, everything is the champion's and nothing is
counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gateway.assignment.ranges import whole
from gateway.config.schema import Config, Endpoint
from gateway.release.state import ReleaseState


class Standing(NamedTuple):
    """The states to serve from, and the endpoints that stay as the plan on disk has them."""

    states: Mapping[str, ReleaseState]
    pinned: frozenset[str]


def standing(config: Config, stored: Mapping[str, ReleaseState], wanted: Mapping[str, ReleaseState]) -> Standing:
    """`wanted` is what the file asks for, where that can be had; `stored` what has happened."""
    states: dict[str, ReleaseState] = {**stored}
    pinned: set[str] = set()
    for name, endpoint in config.endpoints.items():
        state = stored.get(name)
        if state is None or (state != wanted.get(name) and not _fits(state, endpoint)):
            states[name] = _nothing_yet(name, endpoint)
            pinned.add(name)
    return Standing(states, frozenset(pinned))


def _fits(state: ReleaseState, endpoint: Endpoint) -> bool:
    """Whether the file still has what the state is about."""
    experiment = endpoint.experiment.id if endpoint.experiment else ""
    served = {state.champion, *(slot.variant for slot in state.slots), *(one.variant for one in state.kept)}
    return state.experiment == experiment and served <= endpoint.variants.keys()


def _nothing_yet(name: str, endpoint: Endpoint) -> ReleaseState:
    champion = endpoint.champion
    return ReleaseState(endpoint=name, champion=champion, slots=whole(champion), status="fixed")
