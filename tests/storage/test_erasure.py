"""What redaction and the deletion of a store leave behind: nothing, and nothing of others is touched."""

from collections.abc import Iterator

import anthropic
import pytest
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from app.storage.rows.tables import metadata
from tests.storage.outside import Outside, digest, key, outside
from tests.support.servers import Server
from tests.support.waiting import until


@pytest.fixture
def view(server: Server) -> Iterator[Outside]:
    with outside(server.environment) as view:
        yield view


def rows_of(view: Outside, store_id: str) -> dict[str, int]:
    """How many rows every table still has of a store."""
    tables = [table for table in metadata.sorted_tables if "store_id" in table.columns]
    counts = {table.name: view.rows.count(table.name, f"store_id = '{store_id}'") for table in tables}
    return counts | {"memory_stores": view.rows.count("memory_stores", f"id = '{store_id}'")}


def test_content_is_moved_to_its_key_right_after_the_commit(
    client: anthropic.Anthropic, store: Store, view: Outside
) -> None:
    client.beta.memory_stores.memories.create(store.id, path="/memory.md", content="Grüße")
    home = key(store.id, digest("Grüße"))
    until(lambda: home in view.blobs.all_keys(), "the blob is there")
    assert view.blobs.read(home).decode() == "Grüße"
    until(lambda: rows_of(view, store.id)["staged_contents"] == 0, "the stage is empty")


def test_the_same_content_in_two_stores_is_two_blobs(client: anthropic.Anthropic, store: Store, view: Outside) -> None:
    memories = client.beta.memory_stores.memories
    other = client.beta.memory_stores.create(name="other")
    for store_id in (store.id, other.id):
        memories.create(store_id, path="/memory.md", content="same")
    homes = {key(store.id, digest("same")), key(other.id, digest("same"))}
    until(lambda: homes <= view.blobs.all_keys(), "each store has its blob")

    client.beta.memory_stores.delete(other.id)
    until(lambda: not view.blobs_of(other.id), "the deleted store's blob is gone")
    assert key(store.id, digest("same")) in view.blobs.all_keys()
    assert memories.list(store.id, view="full").data[0].content == "same"  # type: ignore[union-attr]


def test_redaction_removes_the_blob_from_the_blob_store(
    client: anthropic.Anthropic, store: Store, view: Outside
) -> None:
    memories, versions = client.beta.memory_stores.memories, client.beta.memory_stores.memory_versions
    memory = memories.create(store.id, path="/memory.md", content="secret")
    until(lambda: digest("secret") in view.blobs_of(store.id), "the secret is in the blob store")
    memories.update(memory.id, memory_store_id=store.id, content="harmless")
    versions.redact(memory.memory_version_id, memory_store_id=store.id)
    until(lambda: view.blobs_of(store.id) == {digest("harmless")}, "only the head's blob is left")
    assert rows_of(view, store.id)["condemned_contents"] == 0


def test_redaction_keeps_the_blob_while_another_version_has_the_same_content(
    client: anthropic.Anthropic, store: Store, view: Outside
) -> None:
    memories, versions = client.beta.memory_stores.memories, client.beta.memory_stores.memory_versions
    one = memories.create(store.id, path="/one.md", content="shared")
    other = memories.create(store.id, path="/other.md", content="shared")
    for memory in (one, other):
        memories.update(memory.id, memory_store_id=store.id, content="after")
    versions.redact(one.memory_version_id, memory_store_id=store.id)
    kept = versions.retrieve(other.memory_version_id, memory_store_id=store.id)
    assert kept.content == "shared"
    until(lambda: view.blobs_of(store.id) == {digest("shared"), digest("after")}, "both blobs are there")

    versions.redact(other.memory_version_id, memory_store_id=store.id)
    until(lambda: view.blobs_of(store.id) == {digest("after")}, "the last version took the blob along")


def test_redaction_leaves_the_text_in_no_table(client: anthropic.Anthropic, store: Store, view: Outside) -> None:
    memories, versions = client.beta.memory_stores.memories, client.beta.memory_stores.memory_versions
    memory = memories.create(store.id, path="/memory.md", content="secret")
    memories.delete(memory.id, memory_store_id=store.id)
    versions.redact(memory.memory_version_id, memory_store_id=store.id)
    sha256 = view.rows.literal(digest("secret"))
    of_store = f"store_id = '{store.id}' AND content_sha256 = {sha256}"
    for table in ("staged_contents", "memory_versions", "memories"):
        assert view.rows.count(table, of_store) == 0, table
    until(lambda: view.rows.count("condemned_contents", of_store) == 0, "the removal is through")
    until(lambda: view.blobs_of(store.id) == set(), "a mover that was faster has taken its blob back")


def test_a_deleted_store_leaves_no_row_and_no_blob(client: anthropic.Anthropic, view: Outside) -> None:
    store = client.beta.memory_stores.create(name="short-lived")
    memories, versions = client.beta.memory_stores.memories, client.beta.memory_stores.memory_versions
    for number in range(5):
        memory = memories.create(store.id, path=f"/{number}.md", content=f"first {number}")
        memories.update(memory.id, memory_store_id=store.id, content=f"second {number}")
    memories.delete(memory.id, memory_store_id=store.id)
    versions.redact(memory.memory_version_id, memory_store_id=store.id)
    until(lambda: len(view.blobs_of(store.id)) == 9, "the contents are in the blob store")

    client.beta.memory_stores.delete(store.id)
    until(lambda: not any(rows_of(view, store.id).values()), "no table has a row of the store")
    assert view.blobs_of(store.id) == set()


def test_a_store_deleted_right_after_a_write_leaves_no_blob(client: anthropic.Anthropic, view: Outside) -> None:
    stores = [client.beta.memory_stores.create(name="very short-lived") for _ in range(8)]
    for store in stores:
        for number in range(3):
            client.beta.memory_stores.memories.create(store.id, path=f"/{number}.md", content=f"content {number}")
        client.beta.memory_stores.delete(store.id)
    for store in stores:
        until(lambda: not any(rows_of(view, store.id).values()), "the store is purged")  # noqa: B023 - used at once
        until(lambda: view.blobs_of(store.id) == set(), "no blob is left")  # noqa: B023
