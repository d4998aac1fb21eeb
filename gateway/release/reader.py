"""Read the model files of a new config beside the control loop: copies, digests and signatures may take minutes.

Meanwhile the loop goes on with the config in use, so that a rollback waits for no file; and a file that hangs keeps no
later config from being read.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import NamedTuple

from gateway.clock import Clock
from gateway.config.load import LoadedConfig, placed
from gateway.config.wording import Finding
from gateway.errors import ConfigError
from gateway.release.artifacts import Artifacts
from gateway.release.models import check_models

DEADLINE = 60.0  # seconds after which a read holds up no other
HANGING = 4  # reads left to themselves; with so many, the next waits until one of them ends


class _Read(NamedTuple):
    """The files of one config, under way in a thread."""

    loaded: LoadedConfig
    artifacts: Artifacts
    due: float  # seconds on the monotonic clock
    done: Future[None]


class ModelReader:
    """Reads for one config at a time, the newest that is wanted. Its owner polls, on one thread.

    A read that takes longer than `deadline` seconds is left to itself. If it ends after all, what it has read is not
    read again: very large files need two attempts.
    """

    def __init__(self, clock: Clock, deadline: float = DEADLINE) -> None:
        self._clock = clock
        self._deadline = deadline
        self._wanted: LoadedConfig | None = None
        self._under_way: _Read | None = None
        self._hanging: list[_Read] = []

    @property
    def wanted(self) -> LoadedConfig | None:
        """The config whose files are being read, or are about to be."""
        return self._wanted

    @property
    def busy(self) -> bool:
        """Whether a thread reads, perhaps for a config that is no longer wanted; not one that was left to itself."""
        return self._under_way is not None

    def want(self, loaded: LoadedConfig | None) -> None:
        """Read for this config and forget any other; None for no config."""
        self._wanted = loaded

    def poll(self, known: Artifacts) -> Artifacts | None:
        """What was read for the config that is wanted, once, and it is wanted no longer; None while there is nothing.

        Begins to read where it is time; what `known` has read already is not read again, and it learns what is read.
        Raises ConfigError if the files cannot be served, or not be read in time.
        """
        if (read := self._under_way) is not None:
            if not read.done.done() and self._clock.monotonic() < read.due:
                return None
            self._under_way = None
            if read.done.done():
                known.learn(read.artifacts)
            else:
                self._hanging.append(read)
            if read.loaded is self._wanted:
                self._wanted = None
                return self._result(read)
        if self._wanted is not None:
            self._begin(self._wanted, known)
        return None

    def _result(self, read: _Read) -> Artifacts:
        if not read.done.done():
            said = f"the model files are not read within {self._deadline:g} s: {read.artifacts.reading} takes too long"
            raise ConfigError(placed(read.loaded, [Finding(("endpoints",), said, at_key=True)]))
        read.done.result()
        return read.artifacts

    def _begin(self, wanted: LoadedConfig, known: Artifacts) -> None:
        """Unless its last read still hangs, as the next one would."""
        ended = [read for read in self._hanging if read.done.done()]
        self._hanging = [read for read in self._hanging if read not in ended]
        for read in ended:
            known.learn(read.artifacts)
        if len(self._hanging) < HANGING and all(read.loaded is not wanted for read in self._hanging):
            artifacts = Artifacts(known)
            due = self._clock.monotonic() + self._deadline
            self._under_way = _Read(wanted, artifacts, due, _begun(wanted, artifacts))


def _begun(loaded: LoadedConfig, artifacts: Artifacts) -> Future[None]:
    """In a thread of its own: one of a pool would keep the process from ending while a file hangs."""
    done: Future[None] = Future()

    def work() -> None:
        try:
            check_models(loaded, artifacts)
        except Exception as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=work, name="read models", daemon=True).start()
    return done
