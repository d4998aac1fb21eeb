"""The data port: a bare ASGI callable that has a request answered, and turns exceptions into answers.

What goes wrong in the midst of an answer is raised, as a GatewayError: only the server can still do something.
"""

from __future__ import annotations

import logging

from gateway import descriptors
from gateway.clock import Clock
from gateway.errors import ClientGone, GatewayError, OutOfDescriptors, Overloaded, RequestError
from gateway.serving import problem
from gateway.serving.asgi import CROWDED, REQUEST_ID, Exchange, Receive, Scope, Send
from gateway.serving.http1.admission import Admission
from gateway.serving.routes import Router
from gateway.serving.tables.table import Table
from gateway.serving.wire.forwarding import Proxies
from gateway.telemetry import metrics
from gateway.telemetry.status_page import StatusPage, Word

log = logging.getLogger(__name__)
SPARE = 16  # connections beyond the bound that are asked what they want, at most
_IN_FLIGHT = int(Word.IN_FLIGHT)  # twice for each request: an enumeration's member costs a look-up


class DataApp:
    """The ASGI application of one worker. `table` is swapped by the plan's follower between two requests."""

    def __init__(self, router: Router, page: StatusPage, clock: Clock, room: int = 2 * descriptors.MOST) -> None:
        """`room` is how many connections the process has descriptors for."""
        self.draining = False
        self.proxies = Proxies()
        self._table: Table | None = None
        self._room = room
        self._most_connections = self._most_requests = room
        self._router = router
        self._page = page
        self._words = page.words
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange | None = None
        table = self._table
        words = self._words
        words[_IN_FLIGHT] = in_flight = words[_IN_FLIGHT] + 1
        if table is not None:
            table.in_flight += 1
        try:
            exchange = Exchange(scope, receive, send, self._clock.monotonic(), self)
            if in_flight > self._most_requests or CROWDED in scope:
                _refuse_but_health(scope)
            await self._router.route(exchange, table)
        except ClientGone:
            self._count(metrics.REJECTED.name, (ClientGone.reason,))
            if exchange is not None and exchange.answered:
                raise  # it is there and does not read
        except GatewayError as error:
            await self._refuse(scope, receive, send, exchange, error)
        except Exception:
            log.exception("request failed", extra={"request_id": exchange and exchange.request_id.decode()})
            await self._refuse(scope, receive, send, exchange, GatewayError("the gateway failed"))
        finally:
            words[_IN_FLIGHT] -= 1
            if table is not None:
                table.in_flight -= 1

    @property
    def table(self) -> Table | None:
        return self._table

    @table.setter
    def table(self, table: Table | None) -> None:
        if table is not None:
            plan = table.plan
            most = descriptors.for_clients(self._room, plan.max_requests)
            self._most_connections = min(most, plan.max_connections or most)
            self._most_requests = plan.max_requests
            self.proxies = Proxies(plan.trusted_proxies)
        self._table = table

    def admit(self, connections: int) -> Admission:
        """What becomes of a new connection where so many are open, itself among them."""
        beyond = connections - self._most_connections
        if beyond <= 0:
            return Admission.FREE
        return Admission.CROWDED if beyond <= min(SPARE, 1 + self._most_connections // 4) else Admission.FULL

    def refused(self, reason: str) -> None:
        """The server has refused what came in the place of a request."""
        self._count(metrics.REJECTED.name, (reason,))

    async def _refuse(
        self, scope: Scope, receive: Receive, send: Send, exchange: Exchange | None, error: GatewayError
    ) -> None:
        if isinstance(error, RequestError | OutOfDescriptors):
            self._count(metrics.REJECTED.name, (error.reason,))
        if exchange is None:  # the request id itself was refused: answer under a fresh one
            headers = [header for header in scope["headers"] if header[0] != REQUEST_ID]
            exchange = Exchange({**scope, "headers": headers}, receive, send, self._clock.monotonic(), self)
        if exchange.answered:
            raise error  # half an answer is out; the server cuts the connection, which tells the client
        await exchange.answer(*problem.render(error, scope["path"], exchange.request_id))

    def _count(self, name: str, labels: tuple[str, ...]) -> None:
        self._words[self._page.slot(name, labels)] += 1


def _refuse_but_health(scope: Scope) -> None:
    """Before anybody is drawn, so that no variant's requests are dropped rather than another's."""
    if not scope["raw_path"].startswith(b"/v2/health/"):
        raise Overloaded("more is asked of this gateway than it takes at a time")
