"""The secrets of an installation: signing keys of tokens and the pepper of unit ids.

A node that is alone makes them once, mode 0600. Nodes that share a store have them from their config.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

import msgspec

from gateway.errors import StoreError
from gateway.plan import SigningKey

log = logging.getLogger(__name__)

OWN = 1  # id of the key that a node makes for itself


class Keys(msgspec.Struct, frozen=True):
    """The first key signs, all verify."""

    signing: tuple[SigningKey, ...]
    pepper: str

    @property
    def fingerprint(self) -> str:
        """Tells whether two nodes have the same pepper, and nothing else of it. Signing keys may follow one another."""
        return hashlib.blake2b(self.pepper.lower().encode(), digest_size=16, person=b"gateway.keys.1").hexdigest()


def given(signing: Sequence[str], pepper: str) -> Keys:
    """Keys from a config, 64 hex digits each. A key's id in a token follows from the key, so that the order in which
    nodes have them may differ while one follows another. Raises StoreError if two share an id."""
    keys = [SigningKey(id=_id_of(secret), secret=secret.lower()) for secret in signing]
    if len({key.id for key in keys}) < len(keys):
        raise StoreError("two of the signing keys cannot be told apart in tokens: replace one (`gateway keys`)")
    # A node that was alone has signed as 1; its key may go on as the oldest of an installation.
    return Keys((*keys, SigningKey(id=OWN, secret=keys[-1].secret)), pepper.lower())


def expect_own(path: Path, keys: Keys) -> None:
    """A node that was alone goes on with keys from its config: with another pepper every unit would be a stranger, in
    another variant maybe. Raises StoreError."""
    if not path.exists():
        return
    own = load(path)
    if own.fingerprint != keys.fingerprint:
        raise StoreError(
            f"{path}: the units that this node knows were hashed with another pepper than `keys` has:"
            f" `gateway keys --of {path.parent}` prints the one to go on with; if all units are to be strangers,"
            " remove the file"
        )
    if own.signing[0].secret not in [key.secret for key in keys.signing]:
        log.warning("%s: its signing key is none of `keys`: outcomes by tokens that it has signed are refused", path)


def made() -> Keys:
    return given([secrets.token_hex(32)], secrets.token_hex(32))


def _id_of(secret: str) -> int:
    """0 to 255, but never that of keys that a node has made for itself."""
    (number,) = hashlib.blake2b(bytes.fromhex(secret), digest_size=1, person=b"gateway.keyid.1").digest()
    return 0 if number == OWN else number


def load(path: Path) -> Keys:
    """Raises StoreError if there are none that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Keys)
    except (OSError, msgspec.DecodeError) as error:
        raise StoreError(f"{path}: cannot be read: {error}") from error


def load_or_create(path: Path) -> Keys:
    """Raises StoreError if the file is there but cannot be read as keys: new ones would orphan every token."""
    if path.exists():
        return load(path)
    keys = Keys((SigningKey(id=OWN, secret=secrets.token_hex(32)),), secrets.token_hex(32))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(keys))
        os.fsync(file.fileno())
    return keys
