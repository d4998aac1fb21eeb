"""The addresses of one upstream's name: looked up beside the traffic, and kept while nothing better is known.

A look-up is awaited only while no address is known. Afterwards the last good ones serve at once while a newer look-up
is under way, and go on serving while look-ups fail, up to a bound. Connections to addresses that a name has left are
not used again (`still`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from typing import TYPE_CHECKING

from gateway.backends.faults import AddressProhibited
from gateway.backends.prohibited import is_prohibited

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Lookup = Callable[[str, int], Awaitable[list[str]]]

log = logging.getLogger(__name__)

FRESH = 5.0  # seconds after which an answer is asked for anew
STALE = 300.0  # seconds for which addresses are used that no look-up confirms any more
AVOIDED = 10.0  # seconds for which an address that could not be connected to comes last


async def lookup(host: str, port: int) -> list[str]:
    """What the system's resolver says, in its order (RFC 6724); it works in threads of the loop."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def now() -> float:
    """The loop's seconds."""
    return asyncio.get_running_loop().time()


class Resolver:
    """For an address in the place of a name there is nothing to look up."""

    def __init__(self, host: str, port: int, look_up: Lookup = lookup) -> None:
        self._host = host
        self._port = port
        self._look_up = look_up
        self._literal = _is_address(host)
        self._known: list[str] = [host] if self._literal else []
        self._failure: Exception | None = None  # why the last look-up brought nothing; never raised itself
        self._asked_at = -FRESH
        self._known_at = -STALE
        self._asking: asyncio.Task[None] | None = None
        self._avoided: dict[str, float] = {}  # addresses that failed, and until when
        self._turn = 0

    async def addresses(self) -> list[str]:
        """At least one, in the order in which to try them. Raises OSError if none is known, AddressProhibited for a
        name that leads to this machine's metadata service or the like."""
        if self._literal:
            return self._known
        self.refresh()
        if not self._known or now() - self._known_at >= STALE:
            if self._asking is not None:
                await asyncio.shield(self._asking)
            if not self._known or now() - self._known_at >= STALE:
                raise self._cause()
        return self._in_turn()

    def refresh(self) -> None:
        """Look the name up again if it is time to; nobody waits for that."""
        if not self._literal and self._asking is None and now() - self._asked_at >= FRESH:
            self._asked_at = now()
            self._asking = asyncio.get_running_loop().create_task(self._ask())

    def still(self, address: str) -> bool:
        """Whether the name still leads there."""
        return self._literal or address in self._known

    def avoid(self, address: str) -> None:
        """It could not be connected to."""
        if not self._literal:
            self._avoided[address] = now() + AVOIDED

    def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()

    def _in_turn(self) -> list[str]:
        """Those of the preferred family take turns; then the others, and last what has failed of late."""
        if len(self._known) == 1:
            return self._known
        self._avoided = {one: until for one, until in self._avoided.items() if until > now()}
        good = [one for one in self._known if one not in self._avoided] or self._known
        first = [one for one in good if (":" in one) == (":" in good[0])]
        self._turn = turn = (self._turn + 1) % len(first)
        order = first[turn:] + first[:turn] + good + self._known
        return list(dict.fromkeys(order))

    async def _ask(self) -> None:
        """Raises nothing: why there are no addresses is kept for who asks."""
        try:
            found = await self._look_up(self._host, self._port)
            if bad := next(filter(is_prohibited, found), ""):
                raise AddressProhibited("the upstream's name leads to a prohibited address", f"{self._host}: {bad}")
        except (OSError, UnicodeError, AddressProhibited) as error:
            if self._failure is None and self._known:
                log.warning("%s: not resolved, the last known addresses are used: %s", self._host, error)
            self._failure = error.with_traceback(None)
        else:
            self._failure = None
            if found:
                self._known, self._known_at = found, now()
        finally:
            self._asking = None

    def _cause(self) -> Exception:
        """A new one for each caller: what is raised collects the frames of all who raise it."""
        failure = self._failure
        if isinstance(failure, AddressProhibited):
            return AddressProhibited(str(failure), failure.about)
        if isinstance(failure, OSError):
            return type(failure)(*failure.args)
        return socket.gaierror(socket.EAI_NONAME, str(failure or "the name was not resolved"))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
