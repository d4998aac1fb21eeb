"""What goes wrong with one attempt at an HTTP upstream. Each fault knows the status that tells it to the client, the
bounded word that logs and metrics use, and its error token of RFC 9209 (2.3)."""

from __future__ import annotations

import errno
import socket
import ssl

from gateway.errors import BackendError, BackendTimeout, BackendUnavailable, BadOutput, OutOfDescriptors

WANT_OF_ROOM = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class ConnectFailed(BackendUnavailable):
    """No connection could be made, so nothing was sent."""

    status = 502
    reason = "backend_refused"
    proxy_error = "connection_refused"


class ConnectTimeout(ConnectFailed):
    status = 504
    reason = "backend_connect_timeout"
    proxy_error = "connection_timeout"


class NameNotFound(ConnectFailed):
    """The upstream's name leads to no address."""

    reason = "backend_not_found"
    proxy_error = "dns_error"


class AddressProhibited(ConnectFailed):
    """Its name leads to an address that no upstream may have."""

    reason = "backend_prohibited"
    proxy_error = "destination_ip_prohibited"


class CertificateRefused(ConnectFailed):
    reason = "backend_certificate"
    proxy_error = "tls_certificate_error"


class TlsFailed(ConnectFailed):
    reason = "backend_tls"
    proxy_error = "tls_protocol_error"


class NoSlot(BackendUnavailable):
    """All connections that the upstream may have are busy, and enough calls wait."""

    proxy_error = "connection_limit_reached"


class NoSlotInTime(NoSlot, BackendTimeout):
    """They were busy until the deadline."""

    status = 504
    reason = "backend_timeout"
    kind = "deadline"


class Incomplete(BackendError):
    """The answer ended before it was whole."""

    reason = "backend_incomplete"
    kind = "incomplete"
    proxy_error = "http_response_incomplete"


class GivenUp(Incomplete):
    """By the one who read it: nobody's fault."""


class Unanswered(Incomplete):
    """The connection ended before a single byte of the answer; the request may or may not have been read."""

    proxy_error = "connection_terminated"


class ProtocolFault(BackendError):
    """The bytes that came back are not an HTTP/1 answer."""

    reason = "backend_protocol"
    kind = "protocol"
    proxy_error = "http_protocol_error"


class AnswerHeadTooLarge(BadOutput):
    proxy_error = "http_response_header_section_size"


class AnswerTooLarge(BadOutput):
    proxy_error = "http_response_body_size"


def is_want_of_room(error: Exception) -> bool:
    """Whether it is this process, or its machine, that has no room for a connection."""
    return isinstance(error, OSError) and error.errno in WANT_OF_ROOM


def of_connect(error: Exception, where: str) -> BackendUnavailable | OutOfDescriptors:
    """Why no connection could be made. The client is told the kind; `where` and the words of the system are for who
    runs the gateway."""
    about = f"{where}: {_cause(error)}"
    if is_want_of_room(error):
        return OutOfDescriptors("the gateway has no room for another connection", about)
    if isinstance(error, TimeoutError):
        return ConnectTimeout("the upstream could not be reached in time", about)
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return NameNotFound("the upstream's name could not be resolved", about)
    if isinstance(error, ssl.SSLCertVerificationError):
        return CertificateRefused("the upstream's certificate was not accepted", about)
    if isinstance(error, ssl.SSLError):
        return TlsFailed("the TLS handshake with the upstream failed", about)
    return ConnectFailed("the upstream could not be reached", about)


def _cause(error: Exception) -> str:
    """Why a connect failed, in a few words."""
    if isinstance(error, TimeoutError):
        return "connect timed out"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate was not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"the TLS handshake failed: {error.reason or error}"
    return str(error) or "it closed the connection during the TLS handshake"  # asyncio says no more than its class
