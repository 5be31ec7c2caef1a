"""The hash chain: a digest covers its entry and the digest before, so that a removed or changed line shows.

The digest is SHA-256 over the previous digest's 32 bytes and the entry as compact JSON with sorted keys in UTF-8.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

START: Final = bytes(32)
"""What stands before the first entry."""

FIELDS: Final = (
    "seq", "at", "workspace_id", "actor_type", "actor_id", "action", "subject", "detail", "request_id",
)  # fmt: skip
"""What an entry's digest covers, by the names of the table's columns; `detail` as the stored text."""


def digest(previous: bytes, entry: Mapping[str, Any]) -> bytes:
    """The digest (32 bytes) of an entry that follows the one with the digest `previous`."""
    covered = {field: entry[field] for field in FIELDS}
    text = json.dumps(covered, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(previous + text.encode()).digest()
