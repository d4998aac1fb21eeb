"""Read the model files of a new config beside the control loop: copies, digests and signatures may take minutes.

Meanwhile the loop goes on with the config in use, so that a rollback waits for no file.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future

from gateway.config.load import LoadedConfig
from gateway.release.artifacts import Artifacts
from gateway.release.models import read_models


class ModelReader:
    """Reads for one config at a time, the newest that is wanted. Its owner polls, on one thread."""

    def __init__(self) -> None:
        self._wanted: LoadedConfig | None = None
        self._under_way: tuple[LoadedConfig, Future[Artifacts]] | None = None

    @property
    def wanted(self) -> LoadedConfig | None:
        """The config whose files are being read, or are about to be."""
        return self._wanted

    @property
    def busy(self) -> bool:
        """Whether a thread reads, perhaps for a config that is no longer wanted."""
        return self._under_way is not None

    def want(self, loaded: LoadedConfig | None) -> None:
        """Read for this config and forget any other; None for no config."""
        self._wanted = loaded

    def poll(self, known: Artifacts) -> Artifacts | None:
        """What was read for the config that is wanted, once, and it is wanted no longer; None while there is nothing.

        Begins to read where it is time; what `known` has read already is not read again. Raises ConfigError if the
        files cannot be served.
        """
        if self._under_way is not None:
            loaded, read = self._under_way
            if not read.done():
                return None
            self._under_way = None
            if loaded is self._wanted:
                self._wanted = None
                return read.result()
        if self._wanted is not None:
            self._under_way = self._wanted, _begun(self._wanted, known)
        return None


def _begun(loaded: LoadedConfig, known: Artifacts) -> Future[Artifacts]:
    """In a thread of its own: one of a pool would keep the process from ending while a file hangs."""
    read: Future[Artifacts] = Future()

    def work() -> None:
        try:
            read.set_result(read_models(loaded, known))
        except Exception as error:
            read.set_exception(error)

    threading.Thread(target=work, name="read models", daemon=True).start()
    return read
