"""What a client is told on the data port while this node has no plan, and so no worker that accepts.

As at the first start of a node whose store cannot be reached: a connection that is only queued would wait for ever.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Final

_BODY: Final = (
    b'{"type":"urn:gateway:no_plan","title":"no plan","status":503,'
    b'"detail":"this node has nothing to serve from yet; `gateway status` tells what it waits for"}'
)
ANSWER: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n"
    b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)
MOST: Final = 100  # connections at one look
_HEAD: Final = 65_536  # bytes that are read of a request, so that its client is not reset before it has read the answer


def turn_away(listener: socket.socket) -> int:
    """Answer 503 to whoever waits on a listening socket that does not block; returns to how many."""
    for number in range(MOST):
        try:
            connection, _ = listener.accept()
        except OSError:  # nobody is there, or has gone again
            return number
        with connection:
            connection.setblocking(False)
            with suppress(OSError):
                connection.recv(_HEAD)
            with suppress(OSError):
                connection.send(ANSWER)
                connection.shutdown(socket.SHUT_WR)
    return MOST
