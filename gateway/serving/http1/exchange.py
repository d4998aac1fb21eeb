"""One request being answered over HTTP/1.1: the `receive` and `send` that its ASGI application is given.

It is the request, and it frames the answer. Whether the connection lives on, and who is next on it, is the
connection's business.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from gateway.errors import GatewayError
from gateway.serving.asgi import DIRECT
from gateway.serving.http1 import answer as answers
from gateway.serving.http1.answer import BODILESS, CHUNKED, CONTINUE, UNTIL_CLOSE
from gateway.serving.http1.request import Request

if TYPE_CHECKING:
    from gateway.serving.asgi import Headers, Message, Scope
    from gateway.serving.http1.carrier import Carrier

log = logging.getLogger(__name__)

COALESCED = 65_536  # a body up to this size is copied behind its head, to leave in one piece


class HttpExchange(Request):
    __slots__ = (
        "_begun",
        "_head",
        "_left",
        "_running",
        "_unsent",
        "answered",
        "gone",
        "persistent",
        "task",
    )

    def __init__(
        self, carrier: Carrier, scope: Scope, fields: dict[bytes, bytes], expects: bool, persistent: bool
    ) -> None:
        Request.__init__(self, carrier, scope, fields, expects)  # for each request: super() would cost 50 ns
        self.persistent = persistent  # another request may follow; the answer may still decide otherwise
        self.task: asyncio.Task[None] | None = None
        self.gone = False  # nobody is left to be answered
        self.answered = False
        self._running = False
        self._begun = False  # the head of the answer is known
        self._head = b""  # it waits for the first of the body, to leave with it
        self._unsent = True
        self._left = 0  # bytes of the body that content-length still promises, or how it ends

    def __repr__(self) -> str:
        answer = "answered" if self.answered else "not begun" if self._unsent else "being answered"
        return f"<HttpExchange {self.scope['method']} {self.scope['path']}, {answer}>"

    @property
    def interjection(self) -> bytes:
        """What may be written now and says nothing, to see whether anybody is there. Before the answer an interim one,
        which a client has to skip even if it did not expect it (RFC 9110 15.2); between two chunks a first digit of the
        size of the next, which may have leading zeros (RFC 9112 7.1)."""
        if self.scope["http_version"] != "1.1":
            return b""
        if self._unsent:
            return CONTINUE
        return b"0" if self._left == CHUNKED and not self.answered else b""

    def disconnect(self, loop: asyncio.AbstractEventLoop) -> None:
        """The client is gone: an application that waits in `receive` hears it first, any other is cancelled."""
        self.gone = True
        task = self.task
        if task is None:
            return
        if self.wake():
            loop.call_soon(task.cancel)  # in the same tick, unless it has ended by itself
        else:
            task.cancel()
            if not self._running:  # it will never run, so it cannot take itself off
                self._carrier.tasks.discard(task)

    # -- the application and its two ways

    async def run(self, app: Any) -> None:
        self._running = True
        self.scope[DIRECT] = self
        try:
            await app(self.scope, self.receive, self.send)
            if not self.answered and not self.gone:
                self._give_up(RuntimeError("the application returned before its answer was whole"))
        except asyncio.CancelledError:
            if not self.answered and not self.gone:
                self._cut()  # the server stops
            raise
        except Exception as error:
            if not self.answered and not self.gone:
                self._give_up(error)
            elif not isinstance(error, OSError):
                log.exception("the application failed after its answer")
        finally:
            del self.scope[DIRECT]  # else each would hold the other until the collector comes
            # A cancelled task keeps the exception, whose traceback keeps this frame, which keeps the exchange.
            self._carrier.tasks.discard(self.task)
            self.task = None

    async def receive(self) -> Message:
        while not (self.gone or self.answered):
            piece = self.piece()
            if piece is not None:
                return {"type": "http.request", "body": piece, "more_body": not self.ended}
            await self.more()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """OSError once the client is gone; RuntimeError if the application does not keep to its own head."""
        sending = self._carrier.sending
        if sending.paused:
            await sending.wait()
        if self.gone:
            raise ConnectionResetError("the client is gone")
        kind = message["type"]
        if kind == "http.response.body" and self._begun and not self.answered:
            self._write(message.get("body", b""), message.get("more_body", False))
        elif kind == "http.response.start" and not self._begun:
            self._begun = True
            self._start(message["status"], message.get("headers", []))
        else:
            raise RuntimeError(f"{kind} is out of place here ({self!r})")

    # -- the common case, at once (`asgi.Direct`)

    def taken(self) -> bytes | None:
        if not self.whole or self.ended or self.gone or self.answered or self._carrier.intake.paused:
            return None
        self.ended = True
        return self._take()

    def reply(self, status: int, headers: Headers, body: bytes) -> bool:
        carrier = self._carrier
        if self._begun or self.gone or not (self.persistent and self.whole):
            return False
        if carrier.sending.paused or carrier.ending or len(body) > COALESCED or self.scope["method"] == "HEAD":
            return False
        answer = answers.whole(status, headers, carrier.defaults, body)
        if answer is None:
            return False
        self._begun = self.answered = True
        self._unsent = False
        carrier.transport.write(answer)
        carrier.answered(self)
        return True

    # -- the answer

    def _start(self, status: int, headers: Headers) -> None:
        carrier = self._carrier
        scope = self.scope
        self._head, self._left, self.persistent = answers.render(
            status,
            headers,
            carrier.defaults,
            scope["method"] == "HEAD",
            scope["http_version"] == "1.1",
            # An answer that overtakes its request ends the connection: the rest of the body is not worth reading.
            self.persistent and self.whole and not carrier.ending,
        )
        self.expects = False

    def _write(self, body: bytes, more: bool) -> None:
        left = self._left
        if left >= 0:
            self._left = left = left - len(body)
            if left < 0 or (left and not more):
                raise RuntimeError(f"the body ends {left} bytes before its content-length")
        elif left == CHUNKED:
            body = answers.chunk(body, last=not more)
        elif left == BODILESS:
            body = b""
        carrier = self._carrier
        if self._unsent:
            self._unsent = False
            if len(body) <= COALESCED:
                body = self._head + body
            else:
                carrier.transport.write(self._head)
        if body:
            carrier.transport.write(body)
        if not more:
            self.answered = True
            carrier.answered(self)

    def _give_up(self, error: Exception) -> None:
        """The application has ended and its answer has not."""
        if not isinstance(error, GatewayError):
            log.error("the application failed", exc_info=error)
            error = GatewayError("the gateway failed")
        if self._unsent:
            self.answered = True
            self._carrier.refuse(error, self)
        else:
            self._cut()

    def _cut(self) -> None:
        # Where the end of the connection is the end of the body, only a reset tells that it came too early.
        self.gone = True
        self._carrier.cut(reset=self._left == UNTIL_CLOSE)
