"""Which models crash the workers that run them. Pure: a native crash takes a whole process down, no breaker sees it.

A worker may have several models in native code when it dies, and one of them is to blame. So a model is stopped only
after it was there twice within a minute, alone both times or else in every crash of that minute. Stopping one that
merely stood beside costs a person a `resume`; not stopping the one that did it costs everybody their workers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.telemetry.status_page import Model

WITHIN = 60.0  # seconds
ENOUGH = 2  # crashes


class Crash(NamedTuple):
    """A worker died in native code while these models ran, or were being loaded."""

    at: float  # seconds of the wall clock: one control process may see what another did not
    models: frozenset[Model]


@dataclass(slots=True)
class Crashes:
    """The crashes of one node. What is stopped stays so until another file comes, or a person says otherwise; or until
    the control process starts anew, which knows of no crash before.
    """

    _crashes: list[Crash] = field(default_factory=list)
    _stopped: dict[Model, str] = field(default_factory=dict)

    @property
    def stopped(self) -> Mapping[Model, str]:
        """Why, by model."""
        return self._stopped

    def note(self, at: float, models: Collection[Model], how: str) -> list[Model]:
        """A crash by the signal `how`, the older first; the models that are to be stopped from now on."""
        # A clock that was set back must not keep crashes of its future.
        near = [crash for crash in self._crashes if abs(crash.at - at) <= WITHIN]
        self._crashes = [*near, Crash(at, frozenset(models))]
        blamed = [model for model in models if model not in self._stopped and self._blamed(model)]
        for model in blamed:
            times = sum(model in crash.models for crash in self._crashes)
            self._stopped[model] = f"{times} workers crashed within {WITHIN:.0f} s while it ran or was loaded ({how})"
        return blamed

    def concern(self, endpoint: str) -> bool:
        """Whether models of it are stopped."""
        return any(model.endpoint == endpoint for model in self._stopped)

    def keep(self, models: Collection[Model]) -> None:
        """Only these are still served, or wanted."""
        self._stopped = {model: why for model, why in self._stopped.items() if model in models}

    def forgive(self, endpoint: str, variant: str = "") -> None:
        """Its models are tried again, or one."""

        def left(models: Iterable[Model]) -> frozenset[Model]:
            return frozenset(one for one in models if one.endpoint != endpoint or variant not in ("", one.variant))

        self._stopped = {model: self._stopped[model] for model in left(self._stopped)}
        self._crashes = [Crash(at, left(models)) for at, models in self._crashes]

    def _blamed(self, model: Model) -> bool:
        there = [crash for crash in self._crashes if model in crash.models]
        alone = [crash for crash in there if len(crash.models) == 1]
        others = [crash for crash in self._crashes if crash.models and model not in crash.models]
        return len(alone) >= ENOUGH or (len(there) >= ENOUGH and not others)
