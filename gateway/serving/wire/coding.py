"""Content codings of bodies (RFC 9110 8.4): gzip and deflate, bounded in size and in ratio."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping

from gateway.backends.base import Headers
from gateway.errors import BodyTooLarge, RequestError, UnsupportedEncoding
from gateway.serving.wire.headers import field

CODINGS = "gzip, deflate"
WORTH = 14600  # bytes: what fits ten segments (RFC 6928) leaves in one flight, and comes no sooner for being smaller
RATIO = 200  # tensors of text shrink to a fifth, of equal numbers to a hundredth; a bomb to a thousandth
FREE = 1 << 20  # bytes that a body may grow to at any ratio
MEMBERS = 64  # of gzip in one piece of a copy: each copies what is behind it
_WINDOW = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
_ANY_HEADER = zlib.MAX_WBITS | 32  # of gzip, or of zlib, which is what HTTP calls deflate
_LEVEL = 1  # most of the gain for a third of the time of the usual 6


def decoded(body: bytes, coding: bytes, limit: int) -> bytes:
    """The body without its content coding.

    Raises UnsupportedEncoding for a coding that is not ours, BodyTooLarge beyond `limit` bytes or beyond RATIO
    times what was sent, RequestError for a body that is not in its coding.
    """
    name = coding.decode("latin-1").strip().lower()
    if name in ("", "identity"):
        return body
    if name not in _WINDOW:
        raise UnsupportedEncoding(f"the content-encoding {name!r} is not one of {CODINGS}", CODINGS)
    largest = min(limit, max(FREE, RATIO * len(body)))
    stream = zlib.decompressobj(_WINDOW[name])
    try:
        text = stream.decompress(body, largest + 1)
    except zlib.error as error:
        raise RequestError(f"the body is not valid {name}: {error}") from error
    if len(text) > largest:
        raise BodyTooLarge(f"the body of {len(body)} bytes exceeds {largest} bytes when decoded")
    if not stream.eof or stream.unused_data:
        raise RequestError(f"the body is not valid {name}: it is cut short or goes on after its end")
    return text


def encoded(body: bytes, name: str) -> bytes:
    """The body in the coding that `acceptable` named."""
    return gzip.compress(body, _LEVEL, mtime=0) if name == "gzip" else zlib.compress(body, _LEVEL)


def acceptable(accept: bytes) -> str:
    """The best of our codings that an Accept-Encoding header names, or "". `*` names none."""
    weights = dict(_weighed(item) for item in accept.decode("latin-1").lower().split(","))
    best = max(("gzip", "deflate"), key=lambda name: weights.get(name, 0.0))
    return best if weights.get(best, 0.0) > 0 else ""


def grows(headers: Mapping[bytes, bytes], size: int) -> bool:
    """Whether a body of `size` bytes is coded and may become larger than FREE."""
    return size * RATIO > FREE and headers.get(b"content-encoding", b"identity") != b"identity"


class Decoder:
    """Undoes the coding of a copy of an answer, piece by piece; the answer itself goes on as it came.

    Nothing here raises: a coding that is not known, or is not kept to, gives no more bytes.
    """

    __slots__ = ("_inflater", "broken")

    def __init__(self, headers: Headers) -> None:
        coding = field(headers, b"content-encoding").decode("latin-1") or "identity"
        self._inflater = zlib.decompressobj(_ANY_HEADER) if coding in _WINDOW else None
        self.broken = self._inflater is None and coding != "identity"

    def feed(self, piece: bytes) -> bytes:
        if self._inflater is None or self.broken:
            return b"" if self.broken else piece
        texts: list[bytes] = []
        room = FREE
        for _ in range(MEMBERS):
            if self._inflater.eof and piece:
                self._inflater = zlib.decompressobj(_WINDOW["gzip"])  # only gzip has members (RFC 1952, 2.2)
            try:
                text = self._inflater.decompress(piece, room + 1)
            except zlib.error:
                break
            texts.append(text)
            room -= len(text)
            piece = self._inflater.unused_data
            if room < 0 or self._inflater.unconsumed_tail:
                break
            if not piece:
                return b"".join(texts)
        self.broken, self._inflater = True, None
        return b"".join(texts)

    @property
    def complete(self) -> bool:
        """Whether the encoding has said that nothing is missing."""
        return not self.broken and (self._inflater is None or self._inflater.eof)


def _weighed(item: str) -> tuple[str, float]:
    name, _, parameter = item.partition(";")
    key, _, value = parameter.strip().partition("=")
    if key != "q":
        return name.strip(), 1.0
    try:
        return name.strip(), float(value)
    except ValueError:
        return name.strip(), 0.0
