"""How long one exchange with an upstream may take, and who is to blame if it takes longer. Pure: times are arguments,
seconds of one clock.

While the body of the request is still coming, time is its client's, who has deadlines of its own; unless the upstream
takes none of it. From the whole request on it is the upstream's: to the first byte, from piece to piece, to the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.errors import BackendTimeout, RequestTimeout

if TYPE_CHECKING:
    from gateway.backends.base import Timeouts


class Deadlines:
    """Of one exchange at a time, up to the head of an answer that is streamed, or to the end of another."""

    __slots__ = ("_deadline", "_patience", "_since", "_timeouts", "_upload_ends", "full", "uploading")

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._deadline = 0.0
        self._patience = 0.0  # from the whole request to the deadline
        self._since = 0.0  # when the request was whole, or the upstream last did something about it
        self.full = False  # the upstream takes nothing more at present
        self._upload_ends = 0.0
        self.uploading = False  # the request is not whole

    def begin(self, now: float, deadline: float, *, uploading: bool) -> float:
        """A request is sent, or its beginning; the time at which to `check`."""
        self._since = now
        self._deadline = deadline
        self.uploading = uploading
        if uploading:
            self._patience = deadline - now
            self._upload_ends = now + self._timeouts.upload
        return min(deadline, now + self._timeouts.first_byte)

    def uploaded(self, now: float) -> float:
        """The request is whole; the time at which to `check`."""
        return self.begin(now, now + self._patience, uploading=False)

    def blocked(self, now: float) -> None:
        """The upstream takes nothing more."""
        self.full = True
        self._since = now

    def unblocked(self, now: float) -> None:
        """It has taken what there was."""
        self.full = False
        self._since = now

    def heard(self, now: float) -> float:
        """A piece of the answer has come; the time at which to `check`."""
        self._since = now
        return now + self._timeouts.idle

    def check(self, now: float, *, begun: bool, progress: str) -> float:
        """The time at which to look again; raises once somebody's time is over. `begun`: something of the answer has
        come; `progress` says how much."""
        if self.uploading:
            return self._check_upload(now)
        if now >= self._deadline:
            raise BackendTimeout(f"no whole answer by the deadline ({progress})")
        limit = self._timeouts.idle if begun else self._timeouts.first_byte
        if now >= self._since + limit:
            raise BackendTimeout(f"the upstream sent nothing for {limit:g} s ({progress})")
        return min(self._deadline, self._since + limit)

    def _check_upload(self, now: float) -> float:
        if now >= self._upload_ends:
            raise RequestTimeout("the body was not whole in time")
        if not self.full:
            return min(self._upload_ends, now + self._patience)
        if now >= self._since + self._patience:
            raise BackendTimeout("the upstream did not take the body in time")
        return min(self._upload_ends, self._since + self._patience)
