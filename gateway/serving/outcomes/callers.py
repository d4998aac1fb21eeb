"""Who may post what: outcomes by unit need a key, and nobody may post without end about one decision or unit."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from hmac import compare_digest

from gateway.errors import KeyRejected, TooMany
from gateway.serving.asgi import Exchange

MOST = 10_000  # outcomes about one decision or unit within a window: as many as one request may hold
WINDOW = 60.0  # seconds
KNOWN = 1 << 16  # decisions and units to count, at most


class Caller:
    """Whoever sent one request."""

    __slots__ = ("_exchange", "_keys", "_known")

    def __init__(self, exchange: Exchange, keys: Sequence[str]) -> None:
        """`keys` are SHA-256 digests, in hex."""
        self._exchange = exchange
        self._keys = keys
        self._known = False

    def must_hold_a_key(self) -> None:
        """Raises KeyRejected if the caller shows none that is configured."""
        if self._known:
            return
        if not self._keys:
            raise KeyRejected(
                "outcomes by unit are taken from callers with a key only, and `outcomes.keys` in the gateway's config"
                " has none; post the decision token instead, or have a key added"
            )
        scheme, _, key = (self._exchange.once(b"authorization") or b"").partition(b" ")
        shown = sha256(key.strip()).hexdigest()
        matching = [
            compare_digest(shown, one) for one in self._keys
        ]  # with all, whichever it is: the time tells nothing
        if scheme.lower() != b"bearer" or not any(matching):
            raise KeyRejected(
                "outcomes by unit need the header `Authorization: Bearer <key>` with one of `outcomes.keys` in the"
                " gateway's config; with the decision token none is needed"
            )
        self._known = True


class Allowance:
    """Counts what comes about each decision or unit, within a window of time and a bounded memory."""

    __slots__ = ("_counts", "_until")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._until = 0.0  # monotonic seconds

    def renew(self, now: float) -> None:
        """Forget a window that has ended. To be called before each batch."""
        if now >= self._until:
            self._counts.clear()
            self._until = now + WINDOW

    def take(self, about: int) -> None:
        """One more about this; raises TooMany."""
        counts = self._counts
        number = counts.get(about, 0)
        if number >= MOST:
            raise TooMany(f"more than {MOST} outcomes of one decision or unit within {WINDOW:g} s; send the rest later")
        if not number and len(counts) >= KNOWN:
            self._forget()
        counts[about] = number + 1

    def _forget(self) -> None:
        """Keep those about which much has come; if these are many, nobody in particular floods."""
        many = {about: number for about, number in self._counts.items() if number > MOST // 100}
        self._counts.clear()
        if len(many) < KNOWN // 2:
            self._counts.update(many)
