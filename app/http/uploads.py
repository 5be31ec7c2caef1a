"""A request body that its route reads piece by piece, since it may be larger than what is held in memory."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends

from app.contract.errors import RequestTooLarge
from app.http.asgi import Receive
from app.http.headers import Headers

_DIGITS = 18
"""Of a size that is a size; Python refuses to read a number of 5,000 digits."""


class ClientLeft(Exception):
    """The client closed the connection before its request was complete; nobody waits for an answer."""


def too_large(maximum: int) -> RequestTooLarge:
    """The refusal of a body over `maximum` bytes."""
    return RequestTooLarge(f"the request body is larger than {maximum:,} bytes")


def announced_size(headers: Headers) -> int:
    """What a request says of its body's size, in bytes; 0 if it says nothing. More than any limit is one number."""
    length = headers.get(b"content-length", b"")
    if not length.isdigit():
        return 0
    return int(length) if len(length) <= _DIGITS else 10**_DIGITS


class Upload:
    """The body that a request brings. To be read once."""

    def __init__(self, receive: Receive, headers: Headers) -> None:
        self._receive = receive
        self._announced = announced_size(headers)
        self.content_type = headers.get(b"content-type", b"").decode("latin-1")
        self.size = 0
        """Bytes read so far."""

    async def chunks(self, maximum: int) -> AsyncIterator[bytes]:
        """The body's bytes.

        Raises:
            RequestTooLarge: it is, or says it is, larger than `maximum`; the rest was not read.

        """
        if self._announced > maximum:
            raise too_large(maximum)
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            chunk: bytes = message.get("body", b"")
            self.size += len(chunk)
            if self.size > maximum:
                raise too_large(maximum)
            yield chunk
            if not message.get("more_body", False):
                return


def _by_the_gateway() -> Upload:
    raise AssertionError("calls of the API are answered by app.server.gateway")


UploadParameter = Annotated[Upload, Depends(_by_the_gateway)]
"""Of a route that reads its body itself."""
