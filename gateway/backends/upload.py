"""What follows of a request: its body, written as it comes and at the pace at which the upstream takes it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.backends.connection import LAST_CHUNK, chunk
from gateway.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.backends.base import Answer, Request
    from gateway.backends.connection import Connection


async def answered(connection: Connection, future: asyncio.Future[Answer], request: Request) -> Answer:
    """The answer to a request of which head and `body` are written.

    An answer that does not wait for the end of the upload ends it: nobody reads `upload` after the return.
    """
    task = asyncio.get_running_loop().create_task(_pump(connection, request))
    try:
        return await future
    except BaseException:
        connection.give_up(future)  # at once, however long `upload` takes to stop
        raise
    finally:
        del future  # see `HttpBackend.call`
        task.cancel()
        await asyncio.wait((task,))


async def _pump(connection: Connection, request: Request) -> None:
    assert request.upload is not None
    try:
        if request.length is None:
            await _in_chunks(connection, request.upload)
        else:
            await _counted(connection, request.upload, request.length - len(request.body))
        connection.uploaded()
    except Exception as error:  # the client's, or whatever else the upload raises: it is the call's
        connection.fail(error)


async def _in_chunks(connection: Connection, upload: AsyncIterator[bytes]) -> None:
    async for piece in upload:
        if piece:
            await connection.write(chunk(piece))
    await connection.write((LAST_CHUNK,))


async def _counted(connection: Connection, upload: AsyncIterator[bytes], left: int) -> None:
    async for piece in upload:
        left -= len(piece)
        if left < 0:
            break
        await connection.write((piece,))
    if left:
        raise RequestError(
            f"the body is {abs(left)} bytes {'longer' if left < 0 else 'shorter'} than its content-length"
        )
