"""Readers and writers at full speed, without a cache: every row that is read comes with its own content."""

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic

from tests.support.amounts import amount, repeats
from tests.support.backends import Backend
from tests.support.servers import Server, serve

TURNS = amount(15, 400)
CONTENTS = 6


def write(client: anthropic.Anthropic, store_id: str, name: str) -> None:
    """Contents that come, go, come back, and are shared, while they are moved."""
    memories, versions = client.beta.memory_stores.memories, client.beta.memory_stores.memory_versions
    for turn in range(TURNS):
        memory = memories.create(store_id, path=f"/{name}/{turn}.md", content=f"content {turn % CONTENTS}")
        memories.update(memory.id, memory_store_id=store_id, content=f"content {(turn + 1) % CONTENTS}")
        if turn % 2:
            versions.redact(memory.memory_version_id, memory_store_id=store_id)
        if turn % 3:
            memories.delete(memory.id, memory_store_id=store_id)


def check(item: Any) -> None:
    """The content is the one the row names; or the row says that there is none."""
    if item.content_sha256 is None:
        assert item.content is None
        assert item.operation == "deleted" or item.redacted_at is not None
        return
    assert item.content is not None, item
    assert hashlib.sha256(item.content.encode()).hexdigest() == item.content_sha256


def read_memories(client: anthropic.Anthropic, store_id: str) -> None:
    for item in client.beta.memory_stores.memories.list(store_id, view="full", limit=20).data:
        check(item)


def read_versions(client: anthropic.Anthropic, store_id: str) -> None:
    for item in client.beta.memory_stores.memory_versions.list(store_id, view="full", limit=20).data:
        check(item)


def read_one_by_one(client: anthropic.Anthropic, store_id: str) -> None:
    for item in client.beta.memory_stores.memory_versions.list(store_id, limit=10).data:
        check(client.beta.memory_stores.memory_versions.retrieve(item.id, memory_store_id=store_id))
        try:
            check(client.beta.memory_stores.memories.retrieve(item.memory_id, memory_store_id=store_id))
        except anthropic.NotFoundError:
            continue  # deleted by now


READERS = (read_memories, read_versions, read_one_by_one)


def hammer(server: Server) -> int:
    """How often the readers looked."""
    is_over = threading.Event()
    looks = 0

    def read(look: Callable[[anthropic.Anthropic, str], None]) -> None:
        nonlocal looks
        with server.client(max_retries=0) as client:
            while not is_over.is_set():
                look(client, store.id)
                looks += 1

    def write_to_the_end(name: str) -> None:
        with server.client(max_retries=0) as client:
            write(client, store.id, name)

    with server.client(max_retries=0) as client:
        store = client.beta.memory_stores.create(name="hammered")
    with ThreadPoolExecutor(len(READERS) + 2) as threads:
        reading = [threads.submit(read, look) for look in READERS]
        writing = [threads.submit(write_to_the_end, name) for name in ("one", "other")]
        try:
            for writer in writing:
                writer.result()
        finally:
            is_over.set()
        for reader in reading:
            reader.result()
    return looks


@repeats
def test_readers_never_meet_a_row_without_its_content(backend: Backend, tmp_path: Path) -> None:
    with serve(backend.environment(tmp_path), workers=2, settings={"MEMSTORE_CACHE_BYTES": "0"}) as server:
        assert hammer(server) > 10
