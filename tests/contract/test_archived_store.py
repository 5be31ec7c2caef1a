"""What an archived store still allows, and what it refuses (part 1.5)."""

import pytest
from anthropic.resources.beta.memory_stores import Memories, MemoryStores, MemoryVersions
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from tests.contract.routes import Sample
from tests.contract.shapes import PRECONDITION_FAILED, refused, sha256


@pytest.fixture
def archived(sample: Sample, stores: MemoryStores) -> Sample:
    stores.archive(sample.store)
    return sample


def test_reading_is_allowed(
    archived: Sample, stores: MemoryStores, memories: Memories, versions: MemoryVersions
) -> None:
    assert stores.retrieve(archived.store).archived_at is not None
    assert memories.retrieve(archived.memory, memory_store_id=archived.store).content == "second"
    assert [item.path for item in memories.list(archived.store)] == ["/notes/today.md"]
    assert len(versions.list(archived.store).data) == 2
    assert versions.retrieve(archived.version, memory_store_id=archived.store).content == "first"


def test_creating_a_memory_is_refused(archived: Sample, memories: Memories) -> None:
    with refused(400):
        memories.create(archived.store, path="/new", content="x")
    assert len(memories.list(archived.store).data) == 1


def test_updating_and_renaming_a_memory_are_refused(archived: Sample, memories: Memories) -> None:
    with refused(400):
        memories.update(archived.memory, memory_store_id=archived.store, content="third")
    with refused(400):
        memories.update(archived.memory, memory_store_id=archived.store, path="/moved")
    memory = memories.retrieve(archived.memory, memory_store_id=archived.store)
    assert (memory.path, memory.content) == ("/notes/today.md", "second")


def test_the_archive_is_noticed_before_a_conflict(archived: Sample, memories: Memories) -> None:
    with refused(400):
        memories.create(archived.store, path="/notes/today.md", content="x")


def test_deleting_a_memory_is_allowed(archived: Sample, memories: Memories, versions: MemoryVersions) -> None:
    with refused(409, PRECONDITION_FAILED):
        memories.delete(archived.memory, memory_store_id=archived.store, expected_content_sha256=sha256("other"))
    memories.delete(archived.memory, memory_store_id=archived.store, expected_content_sha256=sha256("second"))
    assert memories.list(archived.store).data == []
    assert [version.operation for version in versions.list(archived.store)] == [
        "deleted",
        "modified",
        "created",
    ]


def test_redacting_an_older_version_is_allowed(archived: Sample, versions: MemoryVersions) -> None:
    redacted = versions.redact(archived.version, memory_store_id=archived.store)
    assert redacted.redacted_at is not None
    assert versions.retrieve(archived.version, memory_store_id=archived.store).content is None


def test_the_head_becomes_redactable_by_deleting_its_memory(
    archived: Sample, memories: Memories, versions: MemoryVersions
) -> None:
    head = memories.retrieve(archived.memory, memory_store_id=archived.store).memory_version_id
    with refused(400):
        versions.redact(head, memory_store_id=archived.store)
    memories.delete(archived.memory, memory_store_id=archived.store)
    assert versions.redact(head, memory_store_id=archived.store).redacted_at is not None


def test_deleting_the_store_is_allowed(archived: Sample, stores: MemoryStores) -> None:
    assert stores.delete(archived.store).type == "memory_store_deleted"


def test_other_stores_are_not_touched(store: Store, stores: MemoryStores, memories: Memories) -> None:
    other = stores.create(name="archived neighbour")
    stores.archive(other.id)
    assert memories.create(store.id, path="/a", content="x").path == "/a"
    stores.delete(other.id)
