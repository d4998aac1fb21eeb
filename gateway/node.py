"""What the supervisor tells its children: the settings of each kind of process, passed as JSON."""

from __future__ import annotations

import signal

import msgspec

# To a worker: as SIGTERM, but nobody has to look elsewhere first, for another takes its place.
LEAVE_AT_ONCE = signal.SIGUSR1


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A data-plane worker. Times in seconds."""

    data_dir: str
    spool: int
    socket: int  # file descriptor of the listening socket
    lifeline: int  # read end of a pipe whose closing means that the supervisor is gone
    shutdown_delay: float  # to go on accepting after "not ready", so that balancers look elsewhere
    drain: float  # that idle connections get to send a last request
    grace: float  # for requests in flight


class ControlSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The control process."""

    config: str
    data_dir: str
    lifeline: int
    admin_socket: int
    metrics_socket: int
    name: str = ""  # what other nodes call this one
    last_end: str = ""  # how the last control process of this supervisor ended, in a word of `gateway.ends`
