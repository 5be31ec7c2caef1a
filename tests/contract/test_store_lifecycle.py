"""Stores are made, changed, archived once and for all, and deleted with all they hold (parts 1.1 to 1.6)."""

import httpx2
import pytest
from anthropic.resources.beta.memory_stores import Memories, MemoryStores, MemoryVersions
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from tests.contract.routes import Sample
from tests.contract.shapes import check_refusal, refused


def test_a_name_need_not_be_unique(store: Store, stores: MemoryStores) -> None:
    twin = stores.create(name=store.name)
    assert twin.id != store.id
    stores.delete(twin.id)


def test_create_keeps_what_it_was_given(stores: MemoryStores) -> None:
    store = stores.create(name=" Spaced name ", description="Two\nlines", metadata={"owner": "ada"})
    assert (store.name, store.description) == (" Spaced name ", "Two\nlines")
    assert store.metadata == {"owner": "ada"}
    stores.delete(store.id)


def test_update_changes_only_the_fields_it_names(stores: MemoryStores) -> None:
    store = stores.create(name="before", description="about", metadata={"a": "1"})

    renamed = stores.update(store.id, name="after")
    assert (renamed.name, renamed.description, renamed.metadata) == ("after", "about", {"a": "1"})
    described = stores.update(store.id, description="new")
    assert (described.name, described.description, described.metadata) == ("after", "new", {"a": "1"})
    cleared = stores.update(store.id, description="")
    assert (cleared.name, cleared.description) == ("after", "")
    assert stores.retrieve(store.id) == cleared
    stores.delete(store.id)


def test_null_in_an_update_means_absent(stores: MemoryStores) -> None:
    store = stores.create(name="kept", description="kept", metadata={"kept": "yes"})
    assert stores.update(store.id, name=None, metadata=None) == store
    stores.delete(store.id)


def test_an_update_moves_updated_at_and_keeps_created_at(store: Store, stores: MemoryStores) -> None:
    for change in (
        stores.update(store.id, name="renamed"),
        stores.update(store.id, description="described"),
        stores.update(store.id, metadata={"k": "v"}),
        stores.update(store.id, metadata={"k": None}),
    ):
        assert change.created_at == store.created_at
        assert change.updated_at > store.updated_at
        store = change


def test_an_update_that_changes_nothing_does_not_move_updated_at(stores: MemoryStores) -> None:
    store = stores.create(name="same", description="same", metadata={"k": "v"})
    assert stores.update(store.id) == store
    assert stores.update(store.id, name="same", description="same", metadata={"k": "v"}) == store
    assert stores.update(store.id, metadata={"not-there": None}) == store
    assert stores.update(store.id, metadata={}) == store
    assert stores.retrieve(store.id) == store
    stores.delete(store.id)


def test_changes_of_memories_do_not_move_the_stores_updated_at(
    store: Store, stores: MemoryStores, memories: Memories
) -> None:
    memory = memories.create(store.id, path="/a", content="1")
    memories.update(memory.id, memory_store_id=store.id, content="2", path="/b")
    memories.delete(memory.id, memory_store_id=store.id)
    assert stores.retrieve(store.id) == store


def test_archiving_sets_archived_at_and_moves_updated_at(store: Store, stores: MemoryStores) -> None:
    archived = stores.archive(store.id)
    assert archived.archived_at is not None
    assert archived.archived_at >= store.created_at
    assert archived.updated_at > store.updated_at
    assert stores.retrieve(store.id) == archived


def test_archiving_twice_returns_the_store_unchanged(store: Store, stores: MemoryStores) -> None:
    archived = stores.archive(store.id)
    assert stores.archive(store.id) == archived


def test_an_archived_store_refuses_updates(store: Store, stores: MemoryStores) -> None:
    archived = stores.archive(store.id)
    with refused(400):
        stores.update(store.id, name="too late")
    with refused(400):
        stores.update(store.id, metadata={"too": "late"})
    assert stores.retrieve(store.id) == archived


@pytest.mark.parametrize("archived_first", [False, True], ids=["live", "archived"])
def test_deleting_a_store_deletes_all_it_holds(
    sample: Sample, stores: MemoryStores, memories: Memories, versions: MemoryVersions, archived_first: bool
) -> None:
    if archived_first:
        stores.archive(sample.store)
    stores.delete(sample.store)

    with refused(404):
        stores.retrieve(sample.store)
    with refused(404):
        memories.list(sample.store)
    with refused(404):
        memories.retrieve(sample.memory, memory_store_id=sample.store)
    with refused(404):
        versions.retrieve(sample.version, memory_store_id=sample.store)
    with refused(404):
        stores.delete(sample.store)


@pytest.mark.parametrize("body", [None, b"{}"], ids=["no-body", "empty-object"])
def test_archive_takes_no_body_and_an_empty_object(store: Store, http: httpx2.Client, body: bytes | None) -> None:
    response = http.post(
        f"/v1/memory_stores/{store.id}/archive",
        headers={"content-type": "application/json"},
        content=body,
    )
    assert response.status_code == 200
    assert response.json()["archived_at"] is not None


def test_there_is_no_way_back_from_the_archive(store: Store, stores: MemoryStores, http: httpx2.Client) -> None:
    archived = stores.archive(store.id)
    check_refusal(http.post(f"/v1/memory_stores/{store.id}", json={"archived_at": None}), 400)
    check_refusal(http.post(f"/v1/memory_stores/{store.id}/unarchive"), 404)
    assert stores.retrieve(store.id) == archived
