"""How https:// upstreams are spoken to."""

from __future__ import annotations

import ssl
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def context(ca: Path | None = None) -> ssl.SSLContext:
    """Certificates are verified, by the system's authorities or by those in the PEM file `ca` alone; TLS 1.2 is the
    least. Takes some 50 ms the first time, to read the system's: not for a loop that answers traffic. Afterwards all
    get the same one, until the file has changed. Raises OSError for a file that cannot be read or has none."""
    return _made(ca, 0 if ca is None else ca.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _made(ca: Path | None, _changed: int) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=ca)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    return made
