"""Decision tokens: what a client sends back with an outcome, so that no node needs to look anything up.

Layout (big-endian): version u8 · key id u8 · decision u64 · assigned-at µs u64 · bucket u64 · length-prefixed
endpoint and experiment · MAC (keyed BLAKE2b, 16 bytes). The variant is not in it: clients stay blind.
"""

from __future__ import annotations

import binascii
import struct
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from hmac import compare_digest

from gateway.assignment.hashing import keyed
from gateway.errors import TokenRejected
from gateway.plan import SigningKey

VERSION = 1
MAC_BYTES = 16
_HEAD = struct.Struct(">BBQQQ")
_URLSAFE = bytes.maketrans(b"+/", b"-_")
_STANDARD = bytes.maketrans(b"-_", b"+/")
_LONGEST = 1024  # characters; two names of at most 255 bytes fit with room to spare


@dataclass(frozen=True, slots=True)
class Token:
    """What an authentic token says."""

    endpoint: str
    experiment: str
    decision: int
    assigned_at: int
    bucket: int


class Signer:
    """Signs with the first key, verifies with all of them (rotation keeps the old key until windows end)."""

    def __init__(self, keys: Iterable[SigningKey]) -> None:
        secrets = [(key.id, bytes.fromhex(key.secret)) for key in keys]
        if not secrets:
            raise ValueError("a signer needs at least one key")
        self._current_id, self._current = secrets[0]
        self._secrets = dict(secrets)

    def sign(self, names: bytes, decision: int, assigned_at: int, bucket: int) -> bytes:
        """The token as header-safe bytes. `names` comes from `pack_names`, once per endpoint."""
        head = _HEAD.pack(VERSION, self._current_id, decision, assigned_at, bucket) + names
        mac = keyed(self._current, MAC_BYTES).copy()
        mac.update(head)
        return _spelled(head + mac.digest())

    def verify(self, text: str) -> Token:
        """Raises TokenRejected, without saying which check failed, on anything not signed by a known key."""
        try:
            raw = _decode(text)
            version, key_id, decision, assigned_at, bucket = _HEAD.unpack_from(raw)
            body, mac = raw[:-MAC_BYTES], raw[-MAC_BYTES:]
            secret = self._secrets[key_id]
            expected = keyed(secret, MAC_BYTES).copy()
            expected.update(body)
            if version != VERSION or not compare_digest(mac, expected.digest()):
                raise TokenRejected("the decision token is not valid")
            endpoint, experiment = _unpack_names(body[_HEAD.size :])
        except (binascii.Error, struct.error, KeyError, ValueError, IndexError) as error:
            raise TokenRejected("the decision token is not valid") from error
        return Token(endpoint, experiment, decision, assigned_at, bucket)


def pack_names(endpoint: str, experiment: str) -> bytes:
    """Both names with a length byte each; raises ValueError beyond 255 bytes."""
    parts = [name.encode() for name in (endpoint, experiment)]
    return b"".join(bytes([len(part)]) + part for part in parts)


@lru_cache(maxsize=1024)  # of tokens that were found authentic, and these name what some plan has named
def _unpack_names(raw: bytes) -> tuple[str, str]:
    first = raw[0]
    endpoint, rest = raw[1 : 1 + first], raw[1 + first :]
    second = rest[0]
    if len(rest) != 1 + second:
        raise ValueError("trailing bytes")
    return endpoint.decode(), rest[1:].decode()


def _spelled(raw: bytes) -> bytes:
    """Base64 for URLs and headers, without padding."""
    return b2a_base64(raw, newline=False).translate(_URLSAFE, b"=")


def _decode(text: str) -> bytes:
    if len(text) > _LONGEST:
        raise ValueError("longer than any token")
    raw = text.encode("ascii")
    decoded = a2b_base64(raw.translate(_STANDARD) + b"=" * (-len(raw) % 4))
    # base64 ignores stray characters and spare bits: only the canonical spelling is a token
    if _spelled(decoded) != raw:
        raise ValueError("not canonical base64")
    return decoded
