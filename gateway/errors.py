"""The exception tree. Each class knows the HTTP status it maps to and its error token of RFC 9209 (Proxy-Status); the
mapping happens at one seam (`serving.app`), and every message is addressed to the person who can fix the cause.

    GatewayError
    ├── ConfigError             who edits the file       (never reaches a client)
    ├── RequestError            400  the client
    │   ├── UnknownEndpoint     404
    │   ├── UnknownNode         404
    │   ├── MethodNotAllowed    405
    │   ├── TokenRejected       403
    │   ├── KeyRejected         403
    │   ├── ValueRejected       422  well-formed, but the value cannot be taken
    │   ├── RequestTimeout      408  the head or a part of the body did not come in time
    │   ├── BodyTooLarge        413
    │   ├── TargetTooLong       414
    │   ├── UnsupportedEncoding 415
    │   ├── ExpectationFailed   417
    │   ├── TooMany             429  of one kind from one client, within a time
    │   ├── HeadTooLarge        431
    │   ├── ClientGone          499  nobody is left to be told
    │   ├── NotSupported        501  asked of model servers or of HTTP, and not done here
    │   ├── VersionNotSupported 505
    │   └── NotReady            503  no plan yet, or no longer room
    │       └── Overloaded      503  more is asked of this worker than it takes: whoever would have answered
    ├── BackendError            502  the variant's own attempt failed: counted against it (`backends.faults` has more)
    │   ├── BackendTimeout      504
    │   ├── BackendUnavailable  503  nothing was sent: no connection
    │   │   └── BreakerOpen     503
    │   └── BadOutput           502  wrong or non-finite output, broken answer
    ├── OutOfDescriptors        503  the gateway itself has no room: no variant's fault
    ├── StoreError              the operator (control process only)
    └── SpoolError              503  a fact could not be kept
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


class GatewayError(Exception):
    """Root of everything this package raises on purpose."""

    status: ClassVar[int] = 500
    reason: ClassVar[str] = "internal"
    proxy_error: ClassVar[str] = "proxy_internal_error"  # RFC 9209 2.3


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One thing to mend in a config file. `line` and `column` count from 1; 0 where unknown."""

    file: str
    line: int
    key: str
    message: str
    column: int = 0

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class ConfigError(GatewayError):
    """A config that cannot be taken, with every problem found in it."""

    reason = "config"

    def __init__(self, problems: list[ConfigProblem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class RequestError(GatewayError):
    """The client sent something that cannot be served as asked."""

    status = 400
    reason = "bad_request"
    proxy_error = "http_request_error"


class UnknownEndpoint(RequestError):
    status = 404
    reason = "unknown_endpoint"


class UnknownNode(RequestError):
    status = 404
    reason = "unknown_node"


class MethodNotAllowed(RequestError):
    status = 405
    reason = "method_not_allowed"

    def __init__(self, *allowed: str) -> None:
        self.allowed = ", ".join(allowed)
        super().__init__(f"only {self.allowed} is answered here")


class TokenRejected(RequestError):
    status = 403
    reason = "token_rejected"


class KeyRejected(RequestError):
    status = 403
    reason = "key_rejected"


class TooMany(RequestError):
    status = 429
    reason = "too_many"


class ValueRejected(RequestError):
    status = 422
    reason = "value_rejected"


class BodyTooLarge(RequestError):
    status = 413
    reason = "body_too_large"


class UnsupportedEncoding(RequestError):
    status = 415
    reason = "unsupported_encoding"

    def __init__(self, message: str, accepted: str = "identity") -> None:
        """`accepted`: the content codings that are taken here."""
        super().__init__(message)
        self.accepted = accepted


class NotSupported(RequestError):
    status = 501
    reason = "not_supported"
    proxy_error = "proxy_internal_response"  # http_request_error is for 4xx


class RequestTimeout(RequestError):
    status = 408
    reason = "request_timeout"


class TargetTooLong(RequestError):
    status = 414
    reason = "target_too_long"


class ExpectationFailed(RequestError):
    status = 417
    reason = "expectation_failed"


class HeadTooLarge(RequestError):
    status = 431
    reason = "head_too_large"


class VersionNotSupported(RequestError):
    status = 505
    reason = "version_not_supported"
    proxy_error = "proxy_internal_response"


class ClientGone(RequestError):
    """The client closed the connection; status as nginx logs it, never sent."""

    status = 499
    reason = "client_closed"


class NotReady(RequestError):
    status = 503
    reason = "not_ready"
    proxy_error = "destination_unavailable"


class Overloaded(NotReady):
    reason = "overloaded"
    proxy_error = "connection_limit_reached"


class _Explained(GatewayError):
    """An error of which the client is told less than who runs the gateway: `about` names hosts and causes."""

    def __init__(self, message: str, about: str = "") -> None:
        super().__init__(message)
        self.about = about


class BackendError(_Explained):
    """The attempt of one variant failed. `kind` is the bounded word that logs and metrics use."""

    status = 502
    reason = "backend_failed"
    kind: ClassVar[str] = "failed"
    tries: int = 1  # how often the request was sent, or was tried to


class BackendTimeout(BackendError):
    status = 504
    reason = "backend_timeout"
    kind = "deadline"
    proxy_error = "http_response_timeout"


class BackendUnavailable(BackendError):
    """Nobody has heard of the request: it could not be sent."""

    status = 503
    reason = "backend_unavailable"
    kind = "connect"
    proxy_error = "destination_unavailable"


class OutOfDescriptors(_Explained):
    """No connection can be opened for want of descriptors, ports or memory: whoever would have answered."""

    status = 503
    reason = "out_of_descriptors"
    proxy_error = "connection_limit_reached"


class BreakerOpen(BackendUnavailable):
    reason = "breaker_open"
    kind = "breaker"
    tries = 0


class BadOutput(BackendError):
    reason = "bad_output"
    kind = "output"


class StoreError(GatewayError):
    reason = "store"


class StoreUnavailable(StoreError):
    """The store cannot be reached, or broke off; it may come back. What was begun must be started over."""


class StoreUnreachable(StoreUnavailable):
    """Nothing could be sent to the store, so nothing was done."""

    reason = "store_unreachable"


class Overtaken(StoreError):
    """Somebody else has moved a release meanwhile; what was to be written on the old state was not."""


class LeaseLost(StoreError):
    """Another node leads by now; what was to be written as the leader was not."""


class SpoolError(GatewayError):
    status = 503
    reason = "spool"
