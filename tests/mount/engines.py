"""Engines on real servers, and what the tests ask of them."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anthropic

from app.mount.door.api import StoreApi
from app.mount.door.entries import Change, Entry
from app.mount.sync.content_cache import ContentCache
from app.mount.sync.engine import Policy, StoreEngine
from tests.support.servers import Server
from tests.support.waiting import until

LABEL = "s1"


@dataclass
class Mounted:
    """An engine, and the changes it told."""

    engine: StoreEngine
    api: StoreApi
    changes: list[Change] = field(default_factory=list)
    modes: list[str] = field(default_factory=list)
    heard: threading.Condition = field(default_factory=threading.Condition)

    def on_change(self, changes: list[Change]) -> None:
        with self.heard:
            self.changes += changes
            self.heard.notify_all()

    def wait_for(self, path: str, text: str | None) -> Entry | None:
        """Wait until it shows this text at the path, None for nothing."""
        until(lambda: self.text(path) == text, f"{path} is {text!r}; it is {self.text(path)!r}")
        return self.engine.get(path)

    def text(self, path: str) -> str | None:
        entry = self.engine.get(path)
        return None if entry is None else self.engine.fetch(entry).decode()

    def texts(self) -> dict[str, str]:
        return {path: self.engine.fetch(entry).decode() for path, entry in self.engine.view().items()}

    def entry(self, path: str) -> Entry:
        entry = self.engine.get(path)
        assert entry is not None
        return entry

    def write(self, path: str, text: str, *, durable: bool = False) -> Entry:
        """What `echo text > path` does."""
        return self.engine.save(path, text.encode(), self.engine.get(path), durable=durable)


@contextlib.contextmanager
def mounted(
    base_url: str,
    token: str,
    store_id: str,
    directory: Path,
    *,
    extensions: bool = True,
    policy: Policy = Policy.MERGE,
    read_only: bool = False,
    name: str = "one",
    seconds: float = 0,
    journal_max_bytes: int = 256 << 20,
    leaves: Sequence[str] = (),
) -> Iterator[Mounted]:
    """A started engine, stopped at the end.

    leaves: the paths that it can't save then; it tries only for a moment if there are any.
    """
    api = StoreApi(base_url, store_id, lambda: token, extensions=extensions, seconds=seconds)
    engine = StoreEngine(
        api,
        directory=directory / name,
        content_cache=ContentCache(directory / f"{name}-cache"),
        read_only=read_only,
        label=LABEL,
        policy=policy,
        poll_seconds=0.05,
        journal_max_bytes=journal_max_bytes,
    )
    it = Mounted(engine, api)
    engine.on_change = it.on_change
    engine.on_feed = it.modes.append
    engine.start()
    try:
        yield it
    finally:
        left = engine.stop(0.1 if leaves else 30.0)
    assert left == list(leaves)


class Remote:
    """A store as another client sees it, through the official SDK."""

    def __init__(self, server: Server, client: anthropic.Anthropic, store_id: str) -> None:
        self.server = server
        self.store_id = store_id
        self._memories = client.beta.memory_stores.memories
        self._versions = client.beta.memory_stores.memory_versions

    def memories(self) -> dict[str, Any]:
        listing = self._memories.list(memory_store_id=self.store_id, view="full", limit=20)
        return {item.path: item for item in listing if item.type == "memory"}

    def texts(self) -> dict[str, str]:
        return {path: item.content for path, item in self.memories().items()}

    def create(self, path: str, text: str) -> str:
        return self._memories.create(self.store_id, path=path, content=text).id

    def update(self, path: str, text: str | None = None, *, new_path: str | None = None) -> None:
        options: dict[str, Any] = {"content": text} if text is not None else {}
        options |= {"path": new_path} if new_path is not None else {}
        self._memories.update(self.memories()[path].id, memory_store_id=self.store_id, **options)

    def delete(self, path: str) -> None:
        self._memories.delete(self.memories()[path].id, memory_store_id=self.store_id)

    def versions(self) -> list[tuple[str, str | None, str | None]]:
        """Operation, path and text of each version, oldest first."""
        listing = self._versions.list(memory_store_id=self.store_id, view="full", limit=20)
        return [(str(item.operation), item.path, item.content) for item in listing][::-1]
