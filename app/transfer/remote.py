"""Reading a store from a server of the same API, the vendor's included: only what the vendor documents is used."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import orjson
import urllib3

from app.contract.errors import AuthenticationFailed, InvalidRequest, NotFound, PermissionDenied, Unavailable

_API_VERSION = "2023-06-01"
_BETA = "agent-memory-2026-07-22"
_PAGE = 20
"""The most that a page with contents holds."""
_ATTEMPTS = 8
_LONGEST_PAUSE_SECONDS = 60.0
_TIMEOUT = urllib3.Timeout(connect=10, read=60)
_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}

_REFUSALS = {401: AuthenticationFailed, 403: PermissionDenied, 404: NotFound}


class Remote:
    """One store of another server."""

    def __init__(
        self, base_url: str, api_key: str, store_id: str, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """`sleep` takes the seconds to wait before a request is sent again."""
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidRequest(f"--from: {base_url!r} is no http or https URL, such as https://memory.example.com")
        self._root = f"{base_url.rstrip('/')}/v1/memory_stores/{quote(store_id, safe='')}"
        self._headers = {
            "x-api-key": api_key,
            "anthropic-version": _API_VERSION,
            "anthropic-beta": _BETA,
            "accept": "application/json",
            "user-agent": "memstore-pull",
        }
        self._sleep = sleep
        self._pool = urllib3.PoolManager(num_pools=1, retries=False, timeout=_TIMEOUT)

    def close(self) -> None:
        """Let go of the connection."""
        self._pool.clear()

    def store(self) -> dict[str, Any]:
        """The store's own fields."""
        return self._get(self._root)

    def version_pages(self, page: str | None) -> Iterator[tuple[list[dict[str, Any]], str | None]]:
        """Pages of versions with contents, newest first, after the cursor `page`; each with the cursor of the next."""
        return self._pages("memory_versions", {"view": "full", "limit": _PAGE}, page)

    def memory_pages(self) -> Iterator[tuple[list[dict[str, Any]], str | None]]:
        """Pages of memories with contents."""
        return self._pages("memories", {"view": "full", "limit": _PAGE}, None)

    def _pages(
        self, what: str, query: Mapping[str, str | int], page: str | None
    ) -> Iterator[tuple[list[dict[str, Any]], str | None]]:
        while True:
            asked = {**query, "page": page} if page else query
            answer = self._get(f"{self._root}/{what}?{urlencode(asked)}")
            data, page = answer.get("data"), answer.get("next_page")
            if not isinstance(data, list):
                raise Unavailable(f"the server's list of {what} can't be understood: it has no 'data'")
            yield data, page
            if page is None:
                return

    def _get(self, url: str) -> dict[str, Any]:
        problem = ""
        for attempt in range(_ATTEMPTS):
            pause = min(0.5 * 2**attempt, _LONGEST_PAUSE_SECONDS)
            try:
                response = self._pool.request("GET", url, headers=self._headers)
            except urllib3.exceptions.HTTPError as error:
                problem = f"it does not answer: {error}"
            else:
                if response.status == 200:
                    return _object(response.data)
                problem = f"it answers {response.status}: {_message(response.data)}"
                if response.status not in _AGAIN:
                    raise _REFUSALS.get(response.status, InvalidRequest)(f"the server refuses: {problem}")
                pause = _retry_after(response.headers.get("retry-after")) or pause
            if attempt + 1 < _ATTEMPTS:
                self._sleep(min(pause, _LONGEST_PAUSE_SECONDS))
        raise Unavailable(f"the server can't be read after {_ATTEMPTS} attempts: {problem}; run the same again later")


def _object(data: bytes) -> dict[str, Any]:
    try:
        read = orjson.loads(data)
    except orjson.JSONDecodeError:
        read = None
    if not isinstance(read, dict):
        raise Unavailable("the server's answer is no JSON object; is this the URL of the API?")
    return read


def _message(data: bytes) -> str:
    try:
        message = orjson.loads(data)["error"]["message"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return data[:200].decode("utf-8", "replace")
    return str(message)


def _retry_after(value: str | None) -> float | None:
    try:
        return max(0.0, float(value)) if value is not None else None
    except ValueError:
        return None
