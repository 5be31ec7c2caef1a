"""Writes that were accepted and then refused by the server: kept as files until a person looks at them."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from app.contract import clock
from app.mount.sync.errors import Refused
from app.mount.sync.intents import Intent


class RefusedWrites:
    """The list, and the texts. Those of earlier processes are in it too. The caller holds a lock."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.records: list[dict[str, Any]] = []
        if directory.is_dir():
            for path in sorted(directory.glob("*.json")):
                with contextlib.suppress(OSError, ValueError):
                    self.records.append(json.loads(path.read_bytes()))

    def keep(self, intent: Intent, refusal: Refused, content: bytes | None) -> None:
        """On disk when this returns."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        now = clock.now()
        stem = f"{now}-{intent.number}"
        record: dict[str, Any] = {
            "path": intent.name,
            "operation": intent.kind.value,
            "reason": refusal.message,
            "errno": refusal.errno,
            "at": clock.rfc3339(now),
            "content": None,
        }
        if content is not None:
            file = self._directory / f"{stem}.txt"
            _write(file, content)
            record["content"] = str(file)
        _write(self._directory / f"{stem}.json", json.dumps(record, ensure_ascii=False).encode())
        self.records.append(record)


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
