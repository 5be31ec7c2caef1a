"""Reading a store from a server of the same API, the vendor's included: only what the vendor documents is used.

The server is a stranger: every answer has a longest time and a largest size, unpacked, and every listing an end.
"""

import contextlib
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPException
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from app.contract.errors import AuthenticationFailed, InvalidRequest, NotFound, PermissionDenied, Unavailable
from app.transfer import answers
from app.transfer.answers import HeadPage, NamePage, RemoteHead, RemoteName, RemoteStore, RemoteVersion, VersionPage

P = TypeVar("P", VersionPage, HeadPage, NamePage)

_API_VERSION = "2023-06-01"
_BETA = "agent-memory-2026-07-22"
_FULL = {"view": "full", "limit": 20}
"""The most that a page with contents holds."""
_NAMES = {"include_archived": "true", "limit": 100}
_ATTEMPTS = 8
_LONGEST_PAUSE_SECONDS = 60.0
_TIMEOUT = urllib3.Timeout(connect=10, read=60)
ANSWER_SECONDS = 300.0
"""The longest that one answer may take, head and body."""
ANSWER_MAX_BYTES = 32 * 1024 * 1024
"""Unpacked. A page of 20 contents of 100 kB is 12 MB where every character is escaped."""
_REFUSAL_MAX_BYTES = 65_536
_CHUNK = 65_536
_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}
_NOTHING_NEW_PAGES = 100
"""After so many pages in a row that bring nothing new, a listing is one that does not end."""
LISTING_MAX_ITEMS = 1_000_000
"""More than any store holds of memories; of versions, what a pull takes."""

_REFUSALS = {401: AuthenticationFailed, 403: PermissionDenied, 404: NotFound}
_GZIP = ("gzip", "x-gzip")
_GZIP_WBITS = 31


class _TooLarge(Exception):
    pass


class Remote:
    """One store of another server."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        store_id: str,
        *,
        sleep: Callable[[float], None] = time.sleep,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        """`sleep` takes the seconds to wait before a request is sent again.

        Raises:
            InvalidRequest: the URL or the key can't be one.

        """
        _check_url(base_url)
        if not api_key.isascii() or not api_key.isprintable() or api_key != api_key.strip():
            raise InvalidRequest("the other server's API key holds characters that no key has, such as a line end")
        self._stores = f"{urlsplit(base_url).path.rstrip('/')}/v1/memory_stores"
        self._root = f"{self._stores}/{quote(store_id, safe='')}"
        self._headers = {
            "x-api-key": api_key,
            "anthropic-version": _API_VERSION,
            "anthropic-beta": _BETA,
            "accept": "application/json",
            "accept-encoding": "gzip",
            "user-agent": "memstore-pull",
        }
        self._sleep = sleep
        self._answer_seconds = answer_seconds
        self._socket: socket.socket | None = None
        self._pool = urllib3.connection_from_url(base_url, maxsize=1, retries=False, timeout=_TIMEOUT)
        self._pool.ConnectionCls = _watched(self._pool.ConnectionCls, self._connected)

    def close(self) -> None:
        """Close the connection."""
        self._pool.close()

    def store(self) -> RemoteStore:
        """The store's own fields."""
        return answers.read(RemoteStore, self._get(self._root), "memory store")

    def version_pages(self, page: str | None) -> Iterator[tuple[list[RemoteVersion], str | None]]:
        """Pages of versions with contents, newest first, after the cursor `page`; each with the cursor of the next.

        Raises:
            Unavailable: the server does not answer, can't be understood, or its listing has no end.

        """
        for each in self._pages(VersionPage, f"{self._root}/memory_versions", _FULL, page):
            yield each.data, each.next_page

    def memory_pages(self) -> Iterator[list[RemoteHead]]:
        """Pages of memories. Errors as above."""
        for each in self._pages(HeadPage, f"{self._root}/memories", _FULL, None):
            yield each.data

    def names(self) -> Iterator[RemoteName]:
        """Every store that the key sees, archived ones as well. Errors as above."""
        for each in self._pages(NamePage, self._stores, _NAMES, None):
            yield from each.data

    def _pages(self, shape: type[P], path: str, query: Mapping[str, Any], page: str | None) -> Iterator[P]:
        what = path.rpartition("/")[2]
        cursors: set[str] = set()
        seen: set[str] = set()
        without_news = 0
        while True:
            asked = {**query, "page": page} if page else query
            answer = answers.read(shape, self._get(f"{path}?{urlencode(asked)}"), f"list of {what}")
            new = {item.id for item in answer.data} - seen
            seen |= new
            without_news = 0 if new else without_news + 1
            page = answer.next_page
            if page is not None and (page in cursors or without_news >= _NOTHING_NEW_PAGES):
                raise Unavailable(f"the server's list of {what} does not end: it repeats itself")
            if len(seen) > LISTING_MAX_ITEMS:
                raise Unavailable(
                    f"the server's list of {what} is longer than {LISTING_MAX_ITEMS:,}, which is not read"
                )
            yield answer
            if page is None:
                return
            cursors.add(page)

    def _get(self, target: str) -> bytes:
        problem = ""
        for attempt in range(_ATTEMPTS):
            pause = min(0.5 * 2**attempt, _LONGEST_PAUSE_SECONDS)
            try:
                status, headers, data = self._answer(target)
            except _TooLarge as error:
                raise Unavailable(f"the server's answer can't be read: {error}") from None
            # The library's own errors are not all of one kind, and what a server sends can make any of them.
            except (urllib3.exceptions.HTTPError, HTTPException, OSError, ValueError, zlib.error) as error:
                problem = f"it does not answer: {answers.short(error)}"
            else:
                if status == 200:
                    return data
                problem = f"it answers {status}: {answers.message_of(data)}"
                if status not in _AGAIN:
                    raise _REFUSALS.get(status, InvalidRequest)(f"the server refuses: {problem}")
                pause = _retry_after(headers.get("retry-after")) or pause
            if attempt + 1 < _ATTEMPTS:
                self._sleep(min(pause, _LONGEST_PAUSE_SECONDS))
        raise Unavailable(f"the server can't be read after {_ATTEMPTS} attempts: {problem}; run the same again later")

    def _connected(self, connected: socket.socket) -> None:
        self._socket = connected

    def _end(self, expired: threading.Event) -> None:
        expired.set()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                # Of the plain socket, below TLS: a thread that reads from it wakes up at its end.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _answer(self, target: str) -> tuple[int, Mapping[str, str], bytes]:
        # A server that sends a byte now and then would never run into the time of a single read.
        expired = threading.Event()
        watch = threading.Timer(self._answer_seconds, self._end, [expired])
        watch.daemon = True
        watch.start()
        try:
            response = self._pool.urlopen(
                "GET", target, headers=self._headers, preload_content=False, redirect=False, decode_content=False
            )
            most = ANSWER_MAX_BYTES if response.status == 200 else _REFUSAL_MAX_BYTES
            try:
                data = _body(response, most, is_cut=response.status != 200)
            except BaseException:
                response.close()
                raise
            if expired.is_set():  # Cut off where it could look like an end.
                response.close()
                raise TimeoutError(f"its answer took longer than {self._answer_seconds:,.0f} s")
            response.release_conn()
            return response.status, response.headers, data
        finally:
            watch.cancel()


def _check_url(base_url: str) -> None:
    try:
        parts = urlsplit(base_url)
        is_usable = (
            parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        )
        is_usable = is_usable and parts.hostname is not None and bool(parts.hostname.encode("idna"))
        is_usable = is_usable and not (parts.username or parts.password or parts.query or parts.fragment)
    except ValueError:
        is_usable = False
    if not is_usable or not base_url.isprintable() or " " in base_url:
        raise InvalidRequest(f"--from: {base_url!r} is no http or https URL, such as https://memory.example.com")


def _watched(kind: type[Any], connected: Callable[[socket.socket], None]) -> type[Any]:
    """A kind of connection that tells of its socket."""
    base: type[Any] = HTTPSConnection if issubclass(kind, HTTPSConnection) else HTTPConnection

    class Watched(base):  # type: ignore[misc]
        def connect(self) -> None:
            super().connect()
            connected(self.sock)

    return Watched


def _body(response: Any, most: int, *, is_cut: bool) -> bytes:
    """The answer's body, unpacked; `is_cut`: what is beyond `most` bytes is left, otherwise it is refused.

    Raises:
        _TooLarge: it is larger, or packed in a way that was not asked for.

    """
    encoding = (response.headers.get("content-encoding") or "identity").strip().lower()
    if encoding not in ("identity", *_GZIP):
        raise _TooLarge(f"it is packed as {answers.short(repr(encoding))}; only gzip was asked for")
    unpacker = zlib.decompressobj(_GZIP_WBITS) if encoding in _GZIP else None
    parts, size = [], 0
    while not (unpacker and unpacker.eof) and (raw := response.read(_CHUNK, decode_content=False)):
        part = unpacker.decompress(raw, most + 1 - size) if unpacker else raw
        parts.append(part)
        size += len(part)
        if size > most:
            if is_cut:
                response.close()
                break
            raise _TooLarge(f"it is larger than {most:,} bytes")
    else:
        if unpacker and not unpacker.eof:
            raise ValueError("the answer was cut off")
    return b"".join(parts)[:most]


def _retry_after(value: str | None) -> float | None:
    try:
        return max(0.0, float(value)) if value is not None else None
    except ValueError:
        return None
