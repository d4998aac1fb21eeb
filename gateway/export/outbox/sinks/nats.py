"""Events into a stream of NATS JetStream, one after the other, each when the one before is acknowledged.

The server drops what comes again within its duplicate window, by `Nats-Msg-Id`. It acknowledges before it syncs its
disk (two minutes later by default): a power cut can lose what was acknowledged, unless `sync_interval: always` is set.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlsplit

from gateway.export.outbox.events import Event
from gateway.export.outbox.sinks import SinkError, shown
from gateway.export.outbox.sinks.retrying import Failure, Retrying
from gateway.export.writers import MissingExtra

T = TypeVar("T")

_TIMEOUT = 10.0  # seconds for one acknowledgement
_ASKING = 2.0  # seconds for what only makes a message clearer
# Without these the client itself tries again, for minutes, even where it may not reconnect.
_ONCE: Final = {"allow_reconnect": False, "max_reconnect_attempts": 1, "reconnect_time_wait": 0, "connect_timeout": 5}


class Nats:
    """Publishes to PREFIX.exposure, PREFIX.outcome and PREFIX.decision, PREFIX being the path of the URL.

    The client lives on a loop in a thread of its own, so that it answers the server's pings while nobody sends.
    """

    def __init__(self, url: str, retrying: Retrying, token_file: Path | None = None) -> None:
        """`url`: nats://[USER:PASSWORD@]HOST[:PORT]/PREFIX, or tls://. Raises MissingExtra without nats-py."""
        try:
            import nats
        except ImportError as error:
            raise MissingExtra("NATS needs nats-py: pip install 'ab-gateway[nats]'") from error
        parts = urlsplit(url)
        self._prefix = parts.path.strip("/").replace("/", ".")
        self._server = parts._replace(path="", query="", fragment="").geturl()
        self._shown = shown(url)
        self._nats: Any = nats
        self._retrying, self._token_file = retrying, token_file
        self._client: Any = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="nats", daemon=True)
        self._thread.start()

    def send(self, events: tuple[Event, ...]) -> None:
        waiting = list(reversed(events))
        self._retrying.until_taken(self._shown, lambda: self._on_loop(self._try(waiting)))

    def idle(self) -> None:
        """Nothing is kept back."""

    def close(self) -> None:
        self._on_loop(self._disconnect())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _try(self, waiting: list[Event]) -> Failure | None:
        """Publish what waits, from the end of the list; what is acknowledged leaves it."""
        errors = self._nats.errors
        try:
            stream = await self._connected()
            while waiting:
                await self._publish(stream, waiting[-1])
                waiting.pop()
        except (self._nats.js.errors.NoStreamResponseError, self._nats.js.errors.ServiceUnavailableError):
            return Failure(await self._why_nobody_takes_it())
        except (self._nats.js.errors.APIError, errors.MaxPayloadError, errors.AuthorizationError) as error:
            await self._disconnect()
            raise SinkError(f"{self._shown}: refused: {error}") from error
        except (errors.Error, OSError) as error:
            await self._disconnect()
            if "authorization" in str(error).lower():  # which the client knows by its text only
                raise SinkError(f"{self._shown}: refused: {error}") from error
            return Failure(str(error) or type(error).__name__)
        return None

    async def _why_nobody_takes_it(self) -> str:
        """A subject without a stream is answered as a server without JetStream is; only the latter has no account."""
        try:
            await self._client.jetstream(timeout=_ASKING).account_info()
        except self._nats.js.errors.ServiceUnavailableError:
            return "JetStream is off on this server, or for this account: nats-server has -js for it"
        except (self._nats.errors.Error, OSError):  # who may publish may not be allowed to ask
            pass
        return f"no stream takes {self._prefix}.>: make one, such as `nats stream add --subjects '{self._prefix}.>'`"

    async def _publish(self, stream: Any, event: Event) -> None:
        kind = event.id.partition("/")[0]
        headers = {"Nats-Msg-Id": quote(event.id, safe="/"), "Content-Type": "application/cloudevents+json"}
        await stream.publish(f"{self._prefix}.{kind}", event.text, timeout=_TIMEOUT, headers=headers)

    async def _connected(self) -> Any:
        if self._client is None:
            token = self._token()
            self._client = self._nats.NATS()
            # It tells of errors by exceptions, too; and when to come back is ours to say.
            await self._client.connect(self._server, token=token, error_cb=_ignore, **_ONCE)
        return self._client.jetstream(timeout=_TIMEOUT)

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def _token(self) -> str | None:
        try:
            return self._token_file.read_text().strip() if self._token_file else None
        except OSError as error:
            raise SinkError(f"{self._token_file}: {error.strerror}") from error

    def _on_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _ignore(error: Exception) -> None:
    """Whoever publishes hears of it."""
