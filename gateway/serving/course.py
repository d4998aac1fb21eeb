"""How one request goes, as far as it is known: what its completion will say."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from gateway.backends.breaker import Breaker
from gateway.errors import BackendError, ClientGone, GatewayError, OutOfDescriptors, RequestError
from gateway.events import End
from gateway.serving.answers.readings import Reader
from gateway.serving.calls.plain import Answer
from gateway.serving.tables.table import Variant


@dataclass(slots=True)
class Course:
    """How a request goes: who answers, how it ends, and what the assigned variant's own attempt came to."""

    served: Variant
    end: End = "failed"
    status: int = 500
    error: str = ""  # of the *assigned* variant, whoever answered in the end
    first_byte_us: int | None = None
    answer: Answer | None = None
    tries: int = 1  # of the assigned variant
    reader: Reader | None = None  # of what metrics take from answers
    unreported: Breaker | None = None  # waits to hear how the rest of the assigned variant's answer comes

    def failed(self, error: BaseException) -> None:
        """The client has no answer, or no whole one; what it did itself is no error of a variant's."""
        if isinstance(error, GatewayError):
            self.status = error.status
        if isinstance(error, BackendError) and not self.error:
            self.tries = error.tries
        if isinstance(error, ClientGone | asyncio.CancelledError):
            self.end = "client_closed"
            if self.answer is None:
                self.status = ClientGone.status
        elif isinstance(error, RequestError | OutOfDescriptors):  # a body that came while it was passed on, or we
            self.end = "rejected"
        else:
            self.error = self.error or (error.kind if isinstance(error, BackendError) else "internal")
