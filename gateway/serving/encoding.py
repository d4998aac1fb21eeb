"""Content encodings undone on a copy of an answer, piece by piece; the answer itself goes on as it came.

Most clients ask for gzip, and upstreams do as they are asked. Nothing here raises: an encoding that is not known, or
is not kept to, gives no more bytes.
"""

from __future__ import annotations

import zlib

from gateway.backends.base import Headers

LARGEST = 1 << 20  # bytes that one piece may become
_ANY_HEADER = zlib.MAX_WBITS | 32  # of gzip, or of zlib, which is what HTTP calls deflate


class Decoder:
    """Undoes the content encoding that an answer's headers name."""

    __slots__ = ("_inflater", "broken")

    def __init__(self, headers: Headers) -> None:
        encoding = next((value.lower() for name, value in headers if name == b"content-encoding"), b"identity")
        self._inflater = zlib.decompressobj(_ANY_HEADER) if encoding in (b"gzip", b"deflate") else None
        self.broken = self._inflater is None and encoding != b"identity"

    def feed(self, piece: bytes) -> bytes:
        if self._inflater is None or self.broken:
            return b"" if self.broken else piece
        try:
            text = self._inflater.decompress(piece, LARGEST)
        except zlib.error:
            self.broken = True
            return b""
        self.broken = bool(self._inflater.unconsumed_tail)
        return text

    @property
    def complete(self) -> bool:
        """Whether the encoding has said that nothing is missing."""
        return not self.broken and (self._inflater is None or self._inflater.eof)
