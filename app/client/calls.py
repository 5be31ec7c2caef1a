"""What a call is: its headers, its path and query, its body, and whether it may be sent again."""

import json
import random
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from .failures import ID, Away, TimedOut
from .version import __version__

HEADERS = {
    "accept": "application/json",
    "accept-encoding": "identity",
    "anthropic-beta": "agent-memory-2026-07-22,managed-agents-2026-04-01",
    "anthropic-version": "2023-06-01",
    "content-type": "application/json",
    "user-agent": f"memstore-client/{__version__}",
}
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.25, 30.0
_REFUSED_UNDONE = (429, 529)
"""Statuses that a server gives before it does anything."""


def may_be_repeated(method: str, away: Away) -> bool:
    """Whether sending a call again does no harm, and may do good."""
    if not away.was_sent or away.status in _REFUSED_UNDONE:
        return True
    return method in ("GET", "HEAD") and not isinstance(away, TimedOut) and away.status != 200


def pause_before(attempt: int, away: Away) -> float:
    """Seconds before the next attempt; not the same for all clients of a server that comes back."""
    pause = _FIRST_PAUSE_SECONDS * 2.0 ** min(attempt, 10) * random.uniform(0.5, 1.0)  # noqa: S311
    return min(max(pause, away.retry_after), _LONGEST_PAUSE_SECONDS)


def target(path: str, query: Mapping[str, Any] | None) -> str:
    """A path of the API with a query, of which None leaves a member out. Raises ValueError."""
    if not path.startswith("/") or not path.isascii() or not path.isprintable() or set(path) & set(" ?#"):
        raise ValueError(f"no path of the API: {path!r}; it starts with / and is quoted")
    given = {key: value for key, value in (query or {}).items() if value is not None}
    try:
        return f"{path}?{urlencode(given)}" if given else path
    except UnicodeEncodeError:
        raise ValueError("a text with a lone surrogate can't be sent: it is no Unicode text") from None


def body_of(body: Mapping[str, Any]) -> bytes:
    """A body as it is sent. Raises ValueError."""
    try:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise ValueError("a text with a lone surrogate can't be sent: it is no Unicode text") from None


def quoted_id(found: str) -> str:
    """An ID as a segment of a path. Raises ValueError if it is none."""
    if not ID.fullmatch(found):
        raise ValueError(f"no ID: {found!r}")
    return quote(found, safe="")


def store(store_id: str) -> str:
    """The path of a store."""
    return f"/v1/memory_stores/{quoted_id(store_id)}"


def memory(store_id: str, memory_id: str) -> str:
    """The path of a memory."""
    return f"{store(store_id)}/memories/{quoted_id(memory_id)}"


def view(with_content: bool) -> str:
    """What the API calls it when contents are given, or not."""
    return "full" if with_content else "basic"
