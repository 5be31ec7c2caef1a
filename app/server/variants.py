"""Other forms of one answer: compressed for clients that take it, and nothing at all for those that have it already."""

import asyncio
import zlib

from app.http.headers import weights

_GZIP_LEVEL = 1
"""Text becomes a third of its size at 100 MB a second; the next levels take much longer for a little more."""
_AT_ONCE_BYTES = 65_536
"""Compressed on the event loop: a millisecond, less than another thread costs."""
_WBITS = 31
"""A gzip header and trailer."""

_PAIRS = list[tuple[bytes, bytes]]


def takes_gzip(accepted: bytes) -> bool:
    """Whether an `Accept-Encoding` allows for gzip: named, or by `*`, with a weight above 0."""
    wanted = weights(accepted.decode("latin-1"))
    return wanted.get("gzip", wanted.get("x-gzip", wanted.get("*", 0.0))) > 0


async def gzip(body: bytes) -> bytes:
    """The body as one gzip member."""
    if len(body) <= _AT_ONCE_BYTES:
        return _gzip(body)
    return await asyncio.to_thread(_gzip, body)


def _gzip(body: bytes) -> bytes:
    compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _WBITS)
    return compressor.compress(body) + compressor.flush()


def weakened(headers: _PAIRS) -> _PAIRS:
    """The headers with a weak entity tag: what is sent has the same meaning, but not the same bytes."""
    return [
        (name, b"W/" + value if name == b"etag" and not value.startswith(b"W/") else value) for name, value in headers
    ]


def is_known(wanted: bytes, etag: bytes) -> bool:
    """Whether an `If-None-Match` names the entity tag, or any; compared weakly (RFC 9110, 8.8.3.2)."""
    if wanted.strip() == b"*":
        return True
    return etag.removeprefix(b"W/") in {tag.strip().removeprefix(b"W/") for tag in wanted.split(b",")}
