"""Events by POST, a batch at a time, until the other side has taken it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Literal, NamedTuple

import httpx

from gateway.clock import Clock
from gateway.export.outbox.events import Event
from gateway.export.outbox.sinks import SinkError, SinkUnavailable, Stopped
from gateway.export.outbox.waiting import Waiter

Form = Literal["ndjson", "cloudevents"]

_TYPES: dict[Form, str] = {"ndjson": "application/x-ndjson", "cloudevents": "application/cloudevents-batch+json"}
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_FIRST, _LONGEST = 0.5, 60.0  # seconds between two tries, before jitter
_MOST_ASKED = 3600.0  # seconds that a Retry-After may ask for
_AGAIN = frozenset((408, 425, 429))  # and all of 5xx
_SHOWN = 500  # bytes of an answer that refuses


class Retrying(NamedTuple):
    """How long the same batch is tried, and what tells of it."""

    clock: Clock
    waiter: Waiter
    patience: float | None  # seconds; None: for ever
    tell: Callable[[str], None] = lambda _: None
    jitter: Callable[[], float] = random.random  # in [0, 1)


class Http:
    """POSTs to one URL. The key of a batch is made of its ids: the same batch has the same key, in whatever process."""

    def __init__(self, url: str, form: Form, retrying: Retrying, token_file: Path | None = None) -> None:
        self._url, self._form, self._retrying, self._token_file = url, form, retrying, token_file
        self._shown = str(httpx.URL(url).copy_with(userinfo=b"", query=None))
        self._client = httpx.Client(timeout=_TIMEOUT, follow_redirects=False)

    def send(self, events: tuple[Event, ...]) -> None:
        body, headers = self._request(events)
        clock, began, tries = self._retrying.clock, self._retrying.clock.monotonic(), 0
        while (why := self._try(body, headers)) is not None:
            tries += 1
            pause = self._pause(tries, why.after)
            patience = self._retrying.patience
            if patience is not None and clock.monotonic() + pause - began > patience:
                raise SinkUnavailable(f"{self._shown}: {why.said}; given up after {tries} tries")
            self._retrying.tell(f"{self._shown}: {why.said}; again in {pause:.1f} s")
            if self._retrying.waiter.wait(pause):
                raise Stopped

    def idle(self) -> None:
        """Nothing is kept back."""

    def close(self) -> None:
        self._client.close()

    def _request(self, events: tuple[Event, ...]) -> tuple[bytes, dict[str, str]]:
        texts = [event.text for event in events]
        body = b"\n".join([*texts, b""]) if self._form == "ndjson" else b"[" + b",".join(texts) + b"]"
        key = hashlib.sha256("\n".join(event.id for event in events).encode()).hexdigest()[:32]
        return body, {"content-type": _TYPES[self._form], "idempotency-key": f'"{key}"'}

    def _try(self, body: bytes, headers: dict[str, str]) -> _Failure | None:
        """None when it was taken. Raises SinkError where another try would get the same answer."""
        try:
            headers = headers | self._authorization()
            with self._client.stream("POST", self._url, content=body, headers=headers) as answer:
                if answer.is_success:
                    return None
                status = answer.status_code
                if status >= 500 or status in _AGAIN:
                    return _Failure(f"answered {status}", _retry_after(answer, self._retrying.clock))
                said = next(answer.iter_bytes(_SHOWN), b"").decode(errors="replace").strip()
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
            raise SinkError(f"{self._shown}: {error}") from error
        except httpx.TransportError as error:
            return _Failure(str(error) or type(error).__name__, None)
        except httpx.HTTPError as error:
            raise SinkError(f"{self._shown}: {error}") from error
        raise SinkError(f"{self._shown}: refused with {status}: {said!r}")

    def _authorization(self) -> dict[str, str]:
        """Read anew for each try: tokens are replaced while we run."""
        if self._token_file is None:
            return {}
        try:
            return {"authorization": f"Bearer {self._token_file.read_text().strip()}"}
        except OSError as error:
            raise SinkError(f"{self._token_file}: {error.strerror}") from error

    def _pause(self, tries: int, asked: float | None) -> float:
        """Never before the other side wants it; those who failed together do not come back together."""
        backoff = min(_FIRST * 2.0 ** min(tries - 1, 20), _LONGEST) * (0.5 + 0.5 * self._retrying.jitter())
        return backoff if asked is None else max(min(asked, _MOST_ASKED), backoff)


class _Failure(NamedTuple):
    said: str
    after: float | None  # seconds, as Retry-After asks


def _retry_after(answer: httpx.Response, clock: Clock) -> float | None:
    value = answer.headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value[:10])
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.fromtimestamp(clock.wall_us() / 1e6, UTC)).total_seconds())
