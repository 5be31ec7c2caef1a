"""Sending an answer piece by piece, and ending it when it is time.

A stream ends when its pieces do. Other things end it earlier: the client leaves; and, for a stream without
an end of its own, the process is asked to end, or the caller may no longer do what was asked for.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from app.contract.errors import MemstoreError, Unavailable, for_log
from app.http.asgi import Receive, Send
from app.http.replies import Stream

_log = logging.getLogger(__name__)

_RECHECK_SECONDS = 2.0
"""Between two looks whether the caller still may; what a look-up remembers comes on top of it."""
_LAST_WORDS_SECONDS = 1.0
"""How long a client that does not read holds up the end of its stream."""

Recheck = Callable[[], Awaitable[bool]]
"""True while the caller is who it was; raises a refusal when it may no longer do this."""


async def send_stream(
    stream: Stream, receive: Receive, send: Send, *, draining: asyncio.Event, recheck: Recheck
) -> None:
    """Send the body of an answer whose start is sent."""
    pump = asyncio.create_task(_pump(stream, send))
    left = asyncio.create_task(_client_leaves(receive))
    reasons: list[asyncio.Task[object]] = [pump, left]
    refused: asyncio.Task[bool] | None = None
    if stream.farewell is not None:
        refused = asyncio.create_task(_caller_changes(recheck))
        reasons += [refused, asyncio.create_task(draining.wait())]
    try:
        await asyncio.wait(reasons, return_when=asyncio.FIRST_COMPLETED)
        is_left = left.done()
        is_refused = refused is not None and refused.done() and refused.result()
    finally:
        for task in reasons:
            task.cancel()
        await asyncio.gather(*reasons, return_exceptions=True)
        await stream.pieces.aclose()
    if is_left:
        return
    if not pump.cancelled() and (error := pump.exception()) is not None:
        _log.log(
            logging.WARNING if isinstance(error, MemstoreError) else logging.ERROR,
            "a stream broke: %s", for_log(error), exc_info=None if isinstance(error, MemstoreError) else error,
        )  # fmt: skip
        if stream.farewell is None:
            return  # Without the end of the body the client sees that something is missing.
    last = stream.farewell if is_refused and stream.farewell is not None else b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LAST_WORDS_SECONDS):
            await send({"type": "http.response.body", "body": last})


async def _pump(stream: Stream, send: Send) -> None:
    async for piece in stream.pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})


async def _client_leaves(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _caller_changes(recheck: Recheck) -> bool:
    """Wait until the caller is refused (True), or is not quite who it was, and has to ask again (False)."""
    while True:
        await asyncio.sleep(_RECHECK_SECONDS)
        try:
            if not await recheck():
                return False
        except Unavailable:
            continue  # Nothing is known; the stream itself ends when its source stays away.
        except MemstoreError:
            return True
