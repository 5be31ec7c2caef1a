"""Redaction: what it removes, what it leaves, and what it refuses (part 3.4)."""

import anthropic
import httpx2
import pytest
from anthropic.resources.beta.memory_stores import Memories, MemoryVersions
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store
from anthropic.types.beta.memory_stores import BetaManagedAgentsMemory as Memory

from tests.contract.conftest import Credential
from tests.contract.routes import Sample
from tests.contract.shapes import refused


def test_redaction_nulls_the_past_and_leaves_the_rest(sample: Sample, versions: MemoryVersions) -> None:
    before = versions.retrieve(sample.version, memory_store_id=sample.store)
    redacted = versions.redact(sample.version, memory_store_id=sample.store)

    assert (redacted.content, redacted.path) == (None, None)
    assert (redacted.content_size_bytes, redacted.content_sha256) == (None, None)
    assert redacted.redacted_at is not None
    assert redacted.redacted_at >= before.created_at
    assert (redacted.id, redacted.memory_id, redacted.operation) == (before.id, before.memory_id, "created")
    assert (redacted.created_at, redacted.created_by) == (before.created_at, before.created_by)
    assert versions.retrieve(sample.version, memory_store_id=sample.store) == redacted
    assert versions.list(sample.store, view="full").data[-1] == redacted


def test_redaction_names_who_redacted(
    colleague: anthropic.Anthropic, colleague_key: Credential, sample: Sample, versions: MemoryVersions
) -> None:
    colleague.beta.memory_stores.memory_versions.redact(sample.version, memory_store_id=sample.store)
    redacted = versions.retrieve(sample.version, memory_store_id=sample.store)

    assert redacted.redacted_by is not None
    assert redacted.redacted_by.to_dict() == {"type": "api_actor", "api_key_id": colleague_key.id}
    assert redacted.created_by is not None
    assert redacted.created_by != redacted.redacted_by


def test_redacting_twice_returns_the_first_result(
    colleague: anthropic.Anthropic, sample: Sample, versions: MemoryVersions
) -> None:
    first = versions.redact(sample.version, memory_store_id=sample.store)
    theirs = colleague.beta.memory_stores.memory_versions
    assert theirs.redact(sample.version, memory_store_id=sample.store) == first


def test_the_head_of_a_live_memory_can_not_be_redacted(
    sample: Sample, memories: Memories, versions: MemoryVersions
) -> None:
    head = memories.retrieve(sample.memory, memory_store_id=sample.store)
    with refused(400):
        versions.redact(head.memory_version_id, memory_store_id=sample.store)
    assert memories.retrieve(sample.memory, memory_store_id=sample.store) == head
    assert versions.retrieve(head.memory_version_id, memory_store_id=sample.store).content == "second"


def test_a_head_becomes_redactable_once_a_newer_version_is_written(
    sample: Sample, memories: Memories, versions: MemoryVersions
) -> None:
    old_head = memories.retrieve(sample.memory, memory_store_id=sample.store).memory_version_id
    memories.update(sample.memory, memory_store_id=sample.store, path="/elsewhere")
    assert versions.redact(old_head, memory_store_id=sample.store).redacted_at is not None
    assert memories.retrieve(sample.memory, memory_store_id=sample.store).content == "second"


def test_every_version_of_a_deleted_memory_is_redactable(
    sample: Sample, memories: Memories, versions: MemoryVersions
) -> None:
    memories.delete(sample.memory, memory_store_id=sample.store)
    operations = []
    for version in versions.list(sample.store, memory_id=sample.memory):
        redacted = versions.redact(version.id, memory_store_id=sample.store)
        operations.append(redacted.operation)
        assert redacted.path is None
        assert redacted.redacted_at is not None
    assert operations == ["deleted", "modified", "created"]
    listed = versions.list(sample.store, view="full").data
    assert [(version.path, version.content) for version in listed] == [(None, None)] * 3


def test_a_redacted_version_is_still_found_by_its_filters(sample: Sample, versions: MemoryVersions) -> None:
    versions.redact(sample.version, memory_store_id=sample.store)
    found = versions.list(sample.store, memory_id=sample.memory, operation="created").data
    assert [version.id for version in found] == [sample.version]


def test_other_versions_with_the_same_content_stay_readable(
    store: Store, memories: Memories, versions: MemoryVersions
) -> None:
    memory = memories.create(store.id, path="/a", content="shared")
    memories.update(memory.id, memory_store_id=store.id, content="between")
    again = memories.update(memory.id, memory_store_id=store.id, content="shared")
    memories.update(memory.id, memory_store_id=store.id, content="head")
    neighbour = memories.create(store.id, path="/b", content="shared")

    versions.redact(memory.memory_version_id, memory_store_id=store.id)
    assert versions.retrieve(memory.memory_version_id, memory_store_id=store.id).content is None
    assert versions.retrieve(again.memory_version_id, memory_store_id=store.id).content == "shared"
    assert memories.retrieve(neighbour.id, memory_store_id=store.id).content == "shared"

    versions.redact(again.memory_version_id, memory_store_id=store.id)
    assert memories.retrieve(neighbour.id, memory_store_id=store.id).content == "shared"


def test_a_renamed_memory_keeps_the_content_its_redacted_past_shares(
    store: Store, memories: Memories, versions: MemoryVersions
) -> None:
    memory = memories.create(store.id, path="/secret-name", content="text")
    memories.update(memory.id, memory_store_id=store.id, path="/harmless")
    versions.redact(memory.memory_version_id, memory_store_id=store.id)
    assert memories.retrieve(memory.id, memory_store_id=store.id).content == "text"
    assert [version.path for version in versions.list(store.id)] == ["/harmless", None]


def test_the_same_content_can_be_written_again_after_a_redaction(
    sample: Sample, memories: Memories, versions: MemoryVersions
) -> None:
    versions.redact(sample.version, memory_store_id=sample.store)
    restored = memories.update(sample.memory, memory_store_id=sample.store, content="first", view="full")
    assert restored.content == "first"
    assert versions.retrieve(restored.memory_version_id, memory_store_id=sample.store).content == "first"
    assert versions.retrieve(sample.version, memory_store_id=sample.store).content is None


@pytest.mark.parametrize("body", [None, b"{}"], ids=["no-body", "empty-object"])
def test_redact_takes_no_body_and_an_empty_object(sample: Sample, http: httpx2.Client, body: bytes | None) -> None:
    response = http.post(
        f"/v1/memory_stores/{sample.store}/memory_versions/{sample.version}/redact",
        headers={"content-type": "application/json"},
        content=body,
    )
    assert response.status_code == 200
    assert response.json()["redacted_at"] is not None


def test_redaction_does_not_touch_the_memory(sample: Sample, memories: Memories, versions: MemoryVersions) -> None:
    def head() -> Memory:
        return memories.retrieve(sample.memory, memory_store_id=sample.store)

    before = head()
    versions.redact(sample.version, memory_store_id=sample.store)
    assert head() == before
