"""What a mount knew of its store when it ended, for a start without the server."""

import contextlib
import json
import os
from collections.abc import Iterable
from dataclasses import astuple
from pathlib import Path

from app.mount.entries import Entry


def save(path: Path, store_id: str, entries: Iterable[Entry]) -> None:
    """Write the file anew; an error is no matter: it is what the server knows too."""
    temporary = path.with_suffix(".new")
    body = {"memory_store_id": store_id, "entries": [astuple(entry) for entry in entries]}
    with contextlib.suppress(OSError):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w") as file:
            json.dump(body, file, ensure_ascii=False, separators=(",", ":"))
        temporary.replace(path)


def load(path: Path, store_id: str) -> list[Entry] | None:
    """The entries; None if there are none for this store."""
    try:
        body = json.loads(path.read_bytes())
        if body["memory_store_id"] != store_id:
            return None
        return [Entry(*fields) for fields in body["entries"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
