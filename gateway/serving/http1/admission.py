"""How many connections a worker holds, and what becomes of those beyond it."""

from __future__ import annotations

from enum import Enum

CROWDED = "gateway.crowded"  # in the scope of a request on a connection that is one too many


class Admission(Enum):
    FREE = "free"
    CROWDED = "crowded"  # one request is read, so that a health check is answered; every other one is refused
    FULL = "full"  # refused before it has said anything
