"""Opaque page cursors: `page_` and base64url of a check sum and the last key of the page.

The check sum covers the listing's name, its filters and the key, so a cursor can't be replayed on another
listing or with other filters. It is no secret: whatever a caller forges stays inside the caller's own listing,
because the listing's scope always comes from the request.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from app.contract.errors import InvalidRequest

_TAG = "page_"
_CHECK_BYTES = 9
# `json.dumps` makes an encoder at each call when it is told how to write.
_scope_json = json.JSONEncoder(separators=(",", ":")).encode
_key_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode

Key = Sequence[str | int]


def _check_sum(listing: Sequence[str | int | bool | None], key: bytes) -> bytes:
    scope = _scope_json(list(listing)).encode()
    return hashlib.blake2b(scope + b"\0" + key, digest_size=_CHECK_BYTES).digest()


def encode(listing: Sequence[str | int | bool | None], key: Key) -> str:
    """The cursor that continues `listing` (its name, scope and filters) after `key`."""
    body = _key_json(list(key)).encode()
    return _TAG + base64.urlsafe_b64encode(_check_sum(listing, body) + body).decode().rstrip("=")


def decode(
    listing: Sequence[str | int | bool | None], cursor: str, shape: Sequence[type[str] | type[int]]
) -> list[Any]:
    """The key that `encode` was given for the same listing; `shape` is the types of its parts.

    Raises:
        InvalidRequest: not a cursor, or the cursor of another listing or other filters.

    """
    refused = InvalidRequest("page: is not a cursor of this listing with these filters; pass a next_page as it came")
    if not cursor.startswith(_TAG):
        raise refused
    text = cursor[len(_TAG) :]
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise refused from None
    check, body = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
    if check != _check_sum(listing, body):
        raise refused
    try:
        key = json.loads(body)
    except (ValueError, RecursionError):
        raise refused from None
    if not isinstance(key, list) or [type(part) for part in key] != list(shape):
        raise refused
    if not all(_is_storable(part) for part in key):
        raise refused
    return key


def _is_storable(part: str | int) -> bool:
    """Whether a database takes it: a number of 64 bits, a text without null characters and lone surrogates."""
    if isinstance(part, int):
        return abs(part) < 2**63
    return "\0" not in part and not any("\ud800" <= character <= "\udfff" for character in part)
