"""Answers that name the endpoint where an upstream named its model: the name is spliced in, nothing is written anew.

A JSON answer is masked whole, an event stream event by event. What is compressed, or no JSON, passes as it is;
upstreams of masked endpoints are not offered compression.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

from gateway.backends.base import Body
from gateway.serving.calls.plain import Answer
from gateway.serving.wire.headers import field, is_coded
from gateway.serving.wire.splice import every_top_level, replaced
from gateway.serving.wire.sse import EventEditor


def masked(answer: Answer, key: bytes, value: bytes) -> Answer:
    """The answer with `value`, which is JSON, at the top-level `key`, if it has that."""
    if is_coded(answer.headers):
        return answer
    if answer.events:
        editor = EventEditor(key, value)
        first = editor.feed(answer.body)
        if answer.rest is None:
            return replace(answer, body=first + editor.rest())
        return replace(answer, body=first, rest=_MaskedEvents(answer.rest, editor))
    if answer.rest is not None or not field(answer.headers, b"content-type").startswith(b"application/json"):
        return answer
    return replace(answer, body=replaced(answer.body, every_top_level(answer.body, key), value))


class _MaskedEvents:
    """The rest of an event stream, edited as it passes."""

    def __init__(self, rest: Body, editor: EventEditor) -> None:
        self._rest = rest
        self._editor = editor

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._rest:
            if whole := self._editor.feed(piece):
                yield whole
        if tail := self._editor.rest():
            yield tail

    def close(self) -> None:
        self._rest.close()
