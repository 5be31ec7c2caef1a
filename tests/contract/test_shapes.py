"""Every object has exactly the contract's keys, always, of the right types (parts 1.1, 2.1, 2.8, 3.1)."""

from typing import Any

import httpx2
from anthropic.resources.beta.memory_stores import Memories, MemoryStores, MemoryVersions
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from tests.contract.routes import Sample
from tests.contract.shapes import (
    API_KEY_ID,
    MEMORY_ID,
    MEMORY_KEYS,
    STORE_ID,
    STORE_KEYS,
    VERSION_ID,
    VERSION_KEYS,
    body_of,
    is_id,
    is_timestamp,
    sha256,
)


def _check_actor(actor: dict[str, Any]) -> None:
    assert set(actor) == {"type", "api_key_id"}
    assert actor["type"] == "api_actor"
    assert is_id(actor["api_key_id"], API_KEY_ID)


def test_a_store_has_every_key_and_only_archived_at_is_null(stores: MemoryStores) -> None:
    body = body_of(stores.with_raw_response.create(name="Shape"))

    assert set(body) == STORE_KEYS
    assert is_id(body["id"], STORE_ID)
    assert body["type"] == "memory_store"
    assert body["name"] == "Shape"
    assert body["description"] == ""
    assert body["metadata"] == {}
    assert is_timestamp(body["created_at"])
    assert body["updated_at"] == body["created_at"]
    assert body["archived_at"] is None
    stores.delete(body["id"])


def test_a_store_looks_the_same_from_every_route(store: Store, stores: MemoryStores) -> None:
    retrieved = body_of(stores.with_raw_response.retrieve(store.id))
    listed = body_of(stores.with_raw_response.list(limit=100))
    updated = body_of(stores.with_raw_response.update(store.id))
    archived = body_of(stores.with_raw_response.archive(store.id))

    assert retrieved in listed["data"]
    assert updated == retrieved
    assert set(archived) == STORE_KEYS
    assert is_timestamp(archived["archived_at"])
    assert {**archived, "archived_at": None, "updated_at": None} == {**retrieved, "updated_at": None}


def test_a_deleted_store_is_an_id_and_a_type(stores: MemoryStores) -> None:
    store = stores.create(name="Gone")
    body = body_of(stores.with_raw_response.delete(store.id))
    assert body == {"id": store.id, "type": "memory_store_deleted"}


def test_a_page_has_data_and_next_page_only(sample: Sample, http: httpx2.Client) -> None:
    for listing in ("", f"/{sample.store}/memories", f"/{sample.store}/memory_versions"):
        body = http.get(f"/v1/memory_stores{listing}").json()
        assert set(body) == {"data", "next_page"}
    assert body["next_page"] is None
    cut = http.get(f"/v1/memory_stores/{sample.store}/memory_versions", params={"limit": 1}).json()
    assert isinstance(cut["next_page"], str)
    assert cut["next_page"].startswith("page_")


def test_a_memory_has_every_key_and_content_in_the_full_view_only(store: Store, memories: Memories) -> None:
    content = "naïve café\n"
    basic = body_of(memories.with_raw_response.create(store.id, path="/a.md", content=content))

    assert set(basic) == MEMORY_KEYS
    assert is_id(basic["id"], MEMORY_ID)
    assert basic["type"] == "memory"
    assert basic["memory_store_id"] == store.id
    assert is_id(basic["memory_version_id"], VERSION_ID)
    assert basic["path"] == "/a.md"
    assert basic["content"] is None
    assert basic["content_size_bytes"] == len(content.encode()) == 13
    assert basic["content_sha256"] == sha256(content)
    assert is_timestamp(basic["created_at"])
    assert basic["updated_at"] == basic["created_at"]

    full = body_of(memories.with_raw_response.retrieve(basic["id"], memory_store_id=store.id))
    assert full == {**basic, "content": content}


def test_a_memory_looks_the_same_from_every_route(store: Store, memories: Memories) -> None:
    memory = memories.create(store.id, path="/a.md", content="text")
    raw = memories.with_raw_response
    full = body_of(raw.update(memory.id, memory_store_id=store.id, content="more", view="full"))
    basic = body_of(raw.retrieve(memory.id, memory_store_id=store.id, view="basic"))

    assert basic == {**full, "content": None}
    assert body_of(raw.retrieve(memory.id, memory_store_id=store.id)) == full
    assert body_of(raw.list(store.id)) == {"data": [basic], "next_page": None}
    assert body_of(raw.list(store.id, view="full")) == {"data": [full], "next_page": None}


def test_a_rolled_up_prefix_has_a_type_and_a_path_only(store: Store, memories: Memories) -> None:
    memories.create(store.id, path="/projects/foo/notes.md", content="x")
    body = body_of(memories.with_raw_response.list(store.id, depth=1))
    assert body == {"data": [{"type": "memory_prefix", "path": "/projects/"}], "next_page": None}


def test_a_deleted_memory_is_an_id_and_a_type(sample: Sample, memories: Memories) -> None:
    body = body_of(memories.with_raw_response.delete(sample.memory, memory_store_id=sample.store))
    assert body == {"id": sample.memory, "type": "memory_deleted"}


def test_a_version_has_every_key_and_content_in_the_full_view_only(sample: Sample, versions: MemoryVersions) -> None:
    raw = versions.with_raw_response
    full = body_of(raw.retrieve(sample.version, memory_store_id=sample.store))

    assert set(full) == VERSION_KEYS
    assert is_id(full["id"], VERSION_ID)
    assert full["type"] == "memory_version"
    assert full["memory_store_id"] == sample.store
    assert full["memory_id"] == sample.memory
    assert full["operation"] == "created"
    assert full["path"] == "/notes/today.md"
    assert full["content"] == "first"
    assert full["content_size_bytes"] == 5
    assert full["content_sha256"] == sha256("first")
    assert is_timestamp(full["created_at"])
    _check_actor(full["created_by"])
    assert full["redacted_at"] is None
    assert full["redacted_by"] is None

    basic = body_of(raw.retrieve(sample.version, memory_store_id=sample.store, view="basic"))
    assert basic == {**full, "content": None}
    assert body_of(raw.list(sample.store))["data"][1] == basic
    assert body_of(raw.list(sample.store, view="full"))["data"][1] == full


def test_a_deleted_version_keeps_its_path_and_nulls_content_size_and_digest(
    sample: Sample, memories: Memories, versions: MemoryVersions
) -> None:
    memories.delete(sample.memory, memory_store_id=sample.store)
    listed = body_of(versions.with_raw_response.list(sample.store, operation="deleted"))["data"][0]
    full = body_of(versions.with_raw_response.retrieve(listed["id"], memory_store_id=sample.store))

    assert full == listed
    assert set(full) == VERSION_KEYS
    assert full["operation"] == "deleted"
    assert full["path"] == "/notes/today.md"
    assert (full["content"], full["content_size_bytes"], full["content_sha256"]) == (None, None, None)
    _check_actor(full["created_by"])
    assert (full["redacted_at"], full["redacted_by"]) == (None, None)


def test_a_redacted_version_keeps_its_keys_and_nulls_what_it_held(sample: Sample, versions: MemoryVersions) -> None:
    raw = versions.with_raw_response
    before = body_of(raw.retrieve(sample.version, memory_store_id=sample.store))
    redacted = body_of(raw.redact(sample.version, memory_store_id=sample.store))

    nulled = dict.fromkeys(("content", "path", "content_size_bytes", "content_sha256"))
    assert is_timestamp(redacted["redacted_at"])
    _check_actor(redacted["redacted_by"])
    assert redacted == {
        **before,
        **nulled,
        "redacted_at": redacted["redacted_at"],
        "redacted_by": redacted["redacted_by"],
    }
    assert body_of(raw.retrieve(sample.version, memory_store_id=sample.store)) == redacted
    assert body_of(raw.list(sample.store, view="full"))["data"][1] == redacted


def test_ids_sort_in_the_order_they_were_made(
    store: Store, stores: MemoryStores, memories: Memories, versions: MemoryVersions
) -> None:
    made = [memories.create(store.id, path=f"/{number}", content="") for number in range(20)]
    assert [memory.id for memory in made] == sorted(memory.id for memory in made)
    version_ids = [memory.memory_version_id for memory in made]
    assert version_ids == sorted(version_ids)

    store_ids = [stores.create(name="sorted").id for _ in range(5)]
    assert store_ids == sorted(store_ids)
    for store_id in store_ids:
        stores.delete(store_id)


def test_answers_are_json_in_utf_8(sample: Sample, http: httpx2.Client) -> None:
    response = http.get(f"/v1/memory_stores/{sample.store}")
    assert response.headers["content-type"].partition(";")[0] == "application/json"
