"""Events by POST, a batch at a time, until the other side has taken it."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Literal

import httpx

from gateway.clock import Clock
from gateway.export.outbox.events import Event
from gateway.export.outbox.sinks import SinkError, shown
from gateway.export.outbox.sinks.retrying import Failure, Retrying

Form = Literal["ndjson", "cloudevents"]

_TYPES: dict[Form, str] = {"ndjson": "application/x-ndjson", "cloudevents": "application/cloudevents-batch+json"}
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_AGAIN = frozenset((408, 425, 429))  # and all of 5xx
_SHOWN = 500  # bytes of an answer that refuses


class Http:
    """POSTs to one URL. The key of a batch is made of its ids: the same batch has the same key, in whatever process."""

    def __init__(self, url: str, form: Form, retrying: Retrying, token_file: Path | None = None) -> None:
        self._url, self._form, self._retrying, self._token_file = url, form, retrying, token_file
        self._shown = shown(url)
        self._client = httpx.Client(timeout=_TIMEOUT, follow_redirects=False)

    def send(self, events: tuple[Event, ...]) -> None:
        body, headers = self._request(events)
        self._retrying.until_taken(self._shown, lambda: self._try(body, headers))

    def idle(self) -> None:
        """Nothing is kept back."""

    def close(self) -> None:
        self._client.close()

    def _request(self, events: tuple[Event, ...]) -> tuple[bytes, dict[str, str]]:
        texts = [event.text for event in events]
        body = b"\n".join([*texts, b""]) if self._form == "ndjson" else b"[" + b",".join(texts) + b"]"
        key = hashlib.sha256("\n".join(event.id for event in events).encode()).hexdigest()[:32]
        return body, {"content-type": _TYPES[self._form], "idempotency-key": f'"{key}"'}

    def _try(self, body: bytes, headers: dict[str, str]) -> Failure | None:
        """None when it was taken. Raises SinkError where another try would get the same answer."""
        try:
            headers = headers | self._authorization()
            with self._client.stream("POST", self._url, content=body, headers=headers) as answer:
                if answer.is_success:
                    return None
                status = answer.status_code
                if status >= 500 or status in _AGAIN:
                    return Failure(f"answered {status}", _retry_after(answer, self._retrying.clock))
                said = next(answer.iter_bytes(_SHOWN), b"").decode(errors="replace").strip()
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
            raise SinkError(f"{self._shown}: {error}") from error
        except httpx.TransportError as error:
            return Failure(str(error) or type(error).__name__)
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
