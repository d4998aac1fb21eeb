"""Hashes of units: one that draws the variant, one that draws who is shadowed, one under which the unit is remembered.

All are keyed BLAKE2b (RFC 7693), which every language has. The drawing hashes are keyed with the salt of the
experiment alone, so any replica, restart or reimplementation draws the same; the stored hash is keyed with a secret
of the installation, so a log cannot be searched for a known user id without it.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

UNIT_BYTES = 16


@lru_cache(maxsize=1024)
def keyed(key: bytes, size: int) -> blake2b:
    """The state of a hash that has taken in its key, for `copy`: half of what hashing a short text costs is the key."""
    return blake2b(digest_size=size, key=key)


def salt_key(salt: str) -> bytes:
    """The 32-byte hash key of a salt of any length."""
    return blake2b(salt.encode(), digest_size=32, person=b"gateway.salt.v1").digest()


def shadow_key(salt: str) -> bytes:
    """As `salt_key`, for the draw of who is shadowed; personalised otherwise, so no salt makes the two draws one."""
    return blake2b(salt.encode(), digest_size=32, person=b"gateway.shadow.1").digest()


def bucket(key: bytes, unit: bytes) -> int:
    """Where a unit falls: an integer uniform on [0, 2**64), big-endian reading of an 8-byte keyed digest."""
    state = keyed(key, 8).copy()
    state.update(unit)
    return int.from_bytes(state.digest(), "big")


def unit_digest(pepper: bytes, unit: bytes) -> bytes:
    """The pseudonym (16 bytes) under which a unit id is stored; the id itself is never written down."""
    state = keyed(pepper, UNIT_BYTES).copy()
    state.update(unit)
    return state.digest()
