"""The data port: a bare ASGI callable that has a request answered, and turns exceptions into answers.

What goes wrong in the midst of an answer is raised, as a GatewayError: only the server can still do something.
"""

from __future__ import annotations

import logging

from gateway.clock import Clock
from gateway.errors import ClientGone, GatewayError, OutOfDescriptors, RequestError
from gateway.serving import problem
from gateway.serving.asgi import REQUEST_ID, Exchange, Receive, Scope, Send
from gateway.serving.routes import Router
from gateway.serving.tables.table import Table
from gateway.telemetry import metrics
from gateway.telemetry.status_page import StatusPage, Word

log = logging.getLogger(__name__)
_IN_FLIGHT = int(Word.IN_FLIGHT)  # twice for each request: an enumeration's member costs a look-up


class DataApp:
    """The ASGI application of one worker. `table` is swapped by the plan's follower between two requests."""

    def __init__(self, router: Router, page: StatusPage, clock: Clock) -> None:
        self.table: Table | None = None
        self.draining = False
        self._router = router
        self._page = page
        self._words = page.words
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange | None = None
        table = self.table
        words = self._words
        words[_IN_FLIGHT] += 1
        if table is not None:
            table.in_flight += 1
        try:
            exchange = Exchange(scope, receive, send, self._clock.monotonic(), self)
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
