"""The secrets of one installation: signing keys of tokens and the pepper of unit ids. Made once, mode 0600."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import msgspec

from gateway.errors import StoreError
from gateway.plan import SigningKey


class Keys(msgspec.Struct, frozen=True):
    """The first key signs, all verify."""

    signing: tuple[SigningKey, ...]
    pepper: str


def load_or_create(path: Path) -> Keys:
    """Raises StoreError if the file is there but cannot be read as keys: new ones would orphan every token."""
    if path.exists():
        try:
            return msgspec.json.decode(path.read_bytes(), type=Keys)
        except (OSError, msgspec.DecodeError) as error:
            raise StoreError(f"{path}: cannot be read: {error}") from error
    keys = Keys((SigningKey(id=1, secret=secrets.token_hex(32)),), secrets.token_hex(32))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(keys))
        os.fsync(file.fileno())
    return keys
