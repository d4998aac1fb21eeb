"""The upward waist: the facts that a worker appends to its spools, and their codec.

A request leaves two facts: an `Assignment` before the backend is called, a `Completion` when the last byte is
handed over. What other variants said to a copy of it comes as a `Shadow`, outcomes come later. Facts are msgpack
arrays with a one-letter tag, so a reader can skip what it does not know only by refusing the file's schema version,
never by guessing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

SCHEMA = 4
READABLE = frozenset((1, 2, 3, 4))  # fields were only added since 1, at the end, with defaults
SEQUENCE_BITS = 40  # a decision id is (spool number << SEQUENCE_BITS) | sequence: 63 bits, ascending per spool
FORCED = 1  # flag: the variant was named by an authorised caller, so the unit has no vote

End = Literal["answered", "failed", "client_closed", "rejected"]


# gc=False: facts hold no containers but a tuple of strings, and millions of them pass through the shipper.


class Assignment(msgspec.Struct, frozen=True, array_like=True, tag="a", gc=False):
    """A unit was given a variant with probability `pi`. Times are microseconds since the epoch."""

    decision: int
    at: int
    endpoint: str
    experiment: str
    stage: str
    variant: str
    pi: float
    bucket: int  # the 64-bit assignment hash
    unit: bytes  # keyed hash of the unit id, 16 bytes
    segments: tuple[str, ...]
    revision: int  # of the plan that drew the variant
    flags: int = 0
    covariates: tuple[float, ...] = ()  # known before the coin, in the order of the endpoint's covariates


class Completion(msgspec.Struct, frozen=True, array_like=True, tag="c", gc=False):
    """How the request ended. `error` names the failure of the *assigned* variant's own attempt, if any."""

    decision: int
    at: int
    served: str
    end: End
    status: int
    first_byte_us: int
    total_us: int
    error: str = ""
    prediction: float | None = None  # what the variant in `served` predicted, where a metric scores it
    tries: int = 1  # of the assigned variant, the first among them; 0 where its breaker let none through
    assigned_at: int = 0  # when its assignment was drawn: both are kept under that day


class Shadow(msgspec.Struct, frozen=True, array_like=True, tag="s", gc=False):
    """What a variant that did not answer said to a copy of the request. Nobody waited for it."""

    decision: int
    at: int
    variant: str
    total_us: int
    error: str = ""
    prediction: float | None = None
    assigned_at: int = 0


class Outcome(msgspec.Struct, frozen=True, array_like=True, tag="o", gc=False):
    """A later fact about an exposure, already checked against its metric."""

    id: str
    at: int
    decision: int
    endpoint: str
    experiment: str
    metric: str
    value: float
    assigned_at: int = 0  # as the token says
    happened_at: int = 0  # as the client says, 0 if it says nothing; windows go by `at`


class UnitOutcome(msgspec.Struct, frozen=True, array_like=True, tag="u", gc=False):
    """An outcome of a unit, from a caller who has no token: it belongs to the unit's vote whose window holds `at`."""

    id: str
    at: int
    endpoint: str
    experiment: str
    bucket: int  # the 64-bit assignment hash of the unit
    unit: bytes  # keyed hash of the unit id, 16 bytes
    metric: str
    value: float
    happened_at: int = 0


class Rejection(msgspec.Struct, frozen=True, array_like=True, tag="r", gc=False):
    """An authentic outcome that could not be taken; kept so that it is counted per variant."""

    at: int
    decision: int
    endpoint: str
    experiment: str
    reason: str


class Heartbeat(msgspec.Struct, frozen=True, array_like=True, tag="h", gc=False):
    """Nothing happened up to `at`: moves the watermark of an idle worker."""

    at: int


Fact = Assignment | Completion | Shadow | Outcome | UnitOutcome | Rejection | Heartbeat

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Fact] = msgspec.msgpack.Decoder(Fact)

encode = _encoder.encode


def decode_into(facts: list[Fact], payloads: Iterable[bytes]) -> None:
    """Append what the payloads hold, in turn; raises msgspec.DecodeError at one that is no fact of this schema."""
    try:
        facts.extend(map(_decoder.decode, payloads))  # which keeps those before a bad one
    except (UnicodeDecodeError, RecursionError) as error:  # msgspec lets these two through as they are
        raise msgspec.DecodeError(str(error)) from error


def decision_id(spool: int, sequence: int) -> int:
    return (spool << SEQUENCE_BITS) | sequence


def spool_of(decision: int) -> int:
    return decision >> SEQUENCE_BITS
