"""Texts that could not be saved: kept on this host until somebody takes or discards them (docs/mount.md).

A place where what a person wrote stays: docs/mount.md lists it under "What stays on this host", and every erasure's
report names it among what is out of reach.
"""

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.contract import clock
from app.mount.sync.errors import MountError

_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{8}")
_STORE = re.compile(r"[A-Za-z0-9_-]+")
_TEXT, _RECORD = "text", "record.json"
_UNFINISHED = ".unfinished-"
_ABANDONED_SECONDS = 3600.0
"""A text that is being kept for so long: its writer was killed, and was never told that it is kept."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One text that could not be saved, or one rename or removal that was refused after it had been accepted."""

    id: str
    path: str
    """In the store; with lone surrogates for bytes that are not UTF-8."""
    reason: str
    """Why it could not be saved: a sentence. It may come from a server: check it before a terminal gets it."""
    place: Path
    """The file with its bytes; where there are none, the directory that tells of it."""
    at: str
    """RFC 3339."""
    memory_id: str | None
    operation: str
    """`save`, `replace`, or what has no text: `rename`, `remove`, `tree`."""
    errno: int
    """What the writer's call failed with, or would have; 0 if it is no such thing."""
    size: int | None
    """Bytes; None: it is no text."""

    def to_json(self) -> dict[str, Any]:
        """For the status: what is known of it, but not the text."""
        return {
            "id": self.id,
            "path": showable(self.path),
            "reason": self.reason,
            "place": str(self.place),
            "at": self.at,
            "memory_id": self.memory_id,
            "operation": self.operation,
            "errno": self.errno,
            "bytes": self.size,
        }


class KeptTexts:
    """The kept texts of one store, each in a directory of its own. Any number of processes may use the same ones."""

    def __init__(self, directory: Path) -> None:
        """Nothing is made before there is something to keep. directory: on a local disk, for its user alone."""
        self._directory = directory
        self._here: set[str] = set()

    def keep(
        self, path: str, content: bytes | None, reason: str, *, memory_id: str | None = None,
        operation: str = "save", errno: int = 0,
    ) -> Kept:  # fmt: skip
        """Keep a text: on disk when this returns. The same text of the same path and reason is kept once.

        content: None for what has no text (see `Kept.operation`).

        Raises:
            OSError: the disk does not take it.

        """
        known = self._same(path, content, reason, operation)
        if known is not None:
            self._here.add(known.id)
            return known
        now = clock.now()
        name = time.strftime("%Y%m%d-%H%M%S-", time.gmtime(now / 1e6)) + secrets.token_hex(4)
        unfinished = self._begin(name)
        record = {
            "path": path,
            "reason": reason,
            "at": clock.rfc3339(now),
            "memory_id": memory_id,
            "operation": operation,
            "errno": errno,
        }
        try:
            if content is not None:
                _write(unfinished / _TEXT, content)
            _write(unfinished / _RECORD, json.dumps(record).encode())
            _sync(unfinished)
            unfinished.rename(self._directory / name)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        _sync(self._directory)
        found = self._read(name)
        assert found is not None
        self._here.add(name)
        return found

    def kept_here(self) -> list[Kept]:
        """Those that this object has put there, and nobody has taken or discarded."""
        return [kept for kept in self.list() if kept.id in self._here]

    def list(self) -> list[Kept]:
        """All of them, the oldest first."""
        try:
            names = os.listdir(self._directory)
        except OSError:
            return []
        found = [kept for kept in map(self._read, names) if kept is not None]
        return sorted(found, key=lambda kept: (kept.at, kept.id))

    def get(self, kept_id: str) -> Kept:
        """One of them. Raises MountError: there is none of this ID."""
        kept = self._read(kept_id)
        if kept is None:
            raise MountError(f"nothing is kept under {kept_id!r}: 'memstore kept list' shows what is")
        return kept

    def show(self, kept_id: str) -> bytes:
        """The text as it was written. Raises MountError: there is none."""
        kept = self.get(kept_id)
        if kept.size is None:
            raise MountError(f"{kept_id} has no text: it is a {kept.operation} that was refused")
        return kept.place.read_bytes()

    def take(self, kept_id: str, target: Path) -> None:
        """Write the text to a new file and keep it here no longer.

        Raises:
            MountError: there is no such text.
            OSError: the target is there already, or can't be written; the text is still kept.

        """
        content = self.show(kept_id)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:  # its close may fail as well: the target may be in a mount
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            _sync(target.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                target.unlink()
            raise
        self.discard(kept_id)

    def discard(self, kept_id: str) -> None:
        """Remove it permanently. Raises MountError: there is none of this ID."""
        self.get(kept_id)
        gone = self._directory / f"{_UNFINISHED}{kept_id}"  # a half-removed one is none
        (self._directory / kept_id).rename(gone)
        shutil.rmtree(gone)
        with contextlib.suppress(OSError):  # others are there
            self._directory.rmdir()

    def discard_saved(self, path: str, content: bytes) -> None:
        """The store has this text at the path now: it need not be kept. Does nothing if it is not."""
        for kept in self.list():
            if kept.path == path and kept.size == len(content):
                with contextlib.suppress(OSError, MountError):
                    if kept.place.read_bytes() == content:
                        self.discard(kept.id)

    def _same(self, path: str, content: bytes | None, reason: str, operation: str) -> Kept | None:
        size = None if content is None else len(content)
        for kept in self.list():
            if (kept.path, kept.reason, kept.operation, kept.size) == (path, reason, operation, size):
                with contextlib.suppress(OSError):
                    if content is None or kept.place.read_bytes() == content:
                        return kept
        return None

    def _begin(self, name: str) -> Path:
        unfinished = self._directory / f"{_UNFINISHED}{name}"
        while True:
            self._make()
            with contextlib.suppress(FileNotFoundError):  # the last text of all was discarded at this moment
                unfinished.mkdir(mode=0o700)
                return unfinished

    def _make(self) -> None:
        missing = [self._directory, *self._directory.parents]
        missing = missing[: next(at for at, directory in enumerate(missing) if directory.is_dir())]
        for directory in reversed(missing):
            directory.mkdir(mode=0o700, exist_ok=True)
            _sync(directory.parent)
        for left in self._directory.glob(f"{_UNFINISHED}*"):
            with contextlib.suppress(OSError):
                if left.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                    shutil.rmtree(left)

    def _read(self, name: str) -> Kept | None:
        if not _ID.fullmatch(name):
            return None
        directory = self._directory / name
        try:
            record = dict(json.loads((directory / _RECORD).read_bytes()))
        except (OSError, ValueError, TypeError):
            if not directory.is_dir():
                return None
            record = {}  # a disk has damaged it; the text may be whole
        try:
            size = (directory / _TEXT).stat().st_size
        except OSError:
            size = None
        return Kept(
            id=name,
            path=str(record.get("path", "?")),
            reason=str(record.get("reason", "its record is damaged")),
            place=directory / _TEXT if size is not None else directory,
            at=str(record.get("at", "?")),
            memory_id=record.get("memory_id"),
            operation=str(record.get("operation", "save")),
            errno=int(record.get("errno", 0)),
            size=size,
        )


class KeptHere:
    """The kept texts of all stores of one state directory."""

    def __init__(self, directory: Path) -> None:
        """directory: holds one for each store that has something kept."""
        self._directory = directory

    def of(self, store_id: str) -> KeptTexts:
        """Those of one store."""
        safe = store_id if _STORE.fullmatch(store_id) else hashlib.sha256(store_id.encode()).hexdigest()
        return KeptTexts(self._directory / safe)

    def all(self) -> Iterator[tuple[str, Kept]]:
        """Every kept text, with the ID of its store."""
        try:
            stores = sorted(os.listdir(self._directory))
        except OSError:
            return
        for store_id in stores:
            for kept in KeptTexts(self._directory / store_id).list():
                yield store_id, kept


def showable(path: str) -> str:
    """A path for JSON: what is not UTF-8 as escapes."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
