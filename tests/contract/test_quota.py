"""Limits an operator may change, met exactly (part 1.8): memories per store, bytes per store, stores."""

from collections.abc import Iterator

import anthropic
import pytest
from anthropic.resources.beta.memory_stores import Memories, MemoryStores

from tests.contract.conftest import make_key, sign_in
from tests.contract.shapes import PATH_CONFLICT, refused
from tests.support.backends import Backend
from tests.support.servers import Server, serve

MAX_MEMORIES = 3
MAX_BYTES = 1_000
MAX_STORES = 2


@pytest.fixture(scope="module")
def small(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {
        "MEMSTORE_MAX_MEMORIES_PER_STORE": str(MAX_MEMORIES),
        "MEMSTORE_MAX_STORE_BYTES": str(MAX_BYTES),
        "MEMSTORE_MAX_STORES": str(MAX_STORES),
    }
    with serve(backend.environment(tmp_path_factory.mktemp("quota")), settings=settings) as server:
        yield server


@pytest.fixture
def stores(small: Server) -> Iterator[MemoryStores]:
    """A client of the small server, whose workspace is emptied afterwards."""
    with small.client(max_retries=0) as client:
        yield client.beta.memory_stores
        for store in client.beta.memory_stores.list(include_archived=True):
            client.beta.memory_stores.delete(store.id)


@pytest.fixture
def memories(stores: MemoryStores) -> Memories:
    return stores.memories


@pytest.fixture
def store_id(stores: MemoryStores) -> str:
    return stores.create(name="small").id


def _fill(memories: Memories, store_id: str) -> list[str]:
    return [memories.create(store_id, path=f"/{number}", content="x").id for number in range(MAX_MEMORIES)]


def test_a_store_takes_exactly_its_number_of_memories(store_id: str, memories: Memories) -> None:
    _fill(memories, store_id)
    with refused(400) as refusal:
        memories.create(store_id, path="/one-more", content="")
    assert str(MAX_MEMORIES) in refusal.error["message"]
    assert len(memories.list(store_id).data) == MAX_MEMORIES


def test_memories_of_a_full_store_stay_readable_and_editable(store_id: str, memories: Memories) -> None:
    first, *_ = _fill(memories, store_id)
    assert memories.retrieve(first, memory_store_id=store_id).content == "x"
    edited = memories.update(first, memory_store_id=store_id, content="y", path="/moved", view="full")
    assert (edited.path, edited.content) == ("/moved", "y")


def test_deleting_a_memory_makes_room_for_one(store_id: str, memories: Memories) -> None:
    first, *_ = _fill(memories, store_id)
    memories.delete(first, memory_store_id=store_id)
    memories.create(store_id, path="/room", content="")
    with refused(400):
        memories.create(store_id, path="/no-room", content="")


def test_a_refused_create_takes_no_room(store_id: str, memories: Memories) -> None:
    memories.create(store_id, path="/0", content="x")
    for _ in range(MAX_MEMORIES):
        with refused(409, PATH_CONFLICT):
            memories.create(store_id, path="/0", content="x")
    for number in range(1, MAX_MEMORIES):
        memories.create(store_id, path=f"/{number}", content="x")


def test_a_conflict_is_reported_before_a_full_store(store_id: str, memories: Memories) -> None:
    _fill(memories, store_id)
    with refused(409, PATH_CONFLICT):
        memories.create(store_id, path="/0", content="x")


def test_a_store_takes_exactly_its_number_of_bytes(store_id: str, memories: Memories) -> None:
    memories.create(store_id, path="/half", content="é" * (MAX_BYTES // 4))
    with refused(400) as refusal:
        memories.create(store_id, path="/over", content="x" * (MAX_BYTES // 2 + 1))
    assert "byte" in refusal.error["message"]
    memories.create(store_id, path="/other-half", content="x" * (MAX_BYTES // 2))
    with refused(400):
        memories.create(store_id, path="/one-byte", content="x")
    memories.create(store_id, path="/empty", content="")


def test_an_update_counts_by_what_it_adds(store_id: str, memories: Memories) -> None:
    memory = memories.create(store_id, path="/a", content="x" * (MAX_BYTES - 10))
    grown = memories.update(memory.id, memory_store_id=store_id, content="y" * MAX_BYTES)
    with refused(400):
        memories.update(memory.id, memory_store_id=store_id, content="z" * (MAX_BYTES + 1))
    assert memories.retrieve(memory.id, memory_store_id=store_id, view="basic") == grown

    memories.update(memory.id, memory_store_id=store_id, content="z" * MAX_BYTES)
    memories.update(memory.id, memory_store_id=store_id, path="/b")
    memories.update(memory.id, memory_store_id=store_id, content="short")
    memories.create(store_id, path="/c", content="x" * (MAX_BYTES - len("short")))


def test_deleting_a_memory_frees_its_bytes(store_id: str, memories: Memories) -> None:
    memory = memories.create(store_id, path="/a", content="x" * MAX_BYTES)
    memories.delete(memory.id, memory_store_id=store_id)
    memories.create(store_id, path="/b", content="y" * MAX_BYTES)


def test_old_versions_do_not_count(store_id: str, memories: Memories) -> None:
    memory = memories.create(store_id, path="/a", content="0" * MAX_BYTES)
    for number in range(1, 5):
        memories.update(memory.id, memory_store_id=store_id, content=str(number) * MAX_BYTES)


def test_a_workspace_takes_exactly_its_number_of_stores(stores: MemoryStores) -> None:
    made = [stores.create(name="x").id for _ in range(MAX_STORES)]
    with refused(400) as refusal:
        stores.create(name="one more")
    assert str(MAX_STORES) in refusal.error["message"]
    stores.delete(made[0])
    stores.create(name="room again")
    with refused(400):
        stores.create(name="one more")


def test_each_workspace_has_its_own_number_of_stores(small: Server, stores: MemoryStores) -> None:
    for _ in range(MAX_STORES):
        stores.create(name="x")
    with sign_in(small, make_key(small, "elsewhere").secret) as other:
        assert other.beta.memory_stores.create(name="theirs").name == "theirs"


def test_the_sdk_does_not_repeat_a_refusal_for_lack_of_room(small: Server, store_id: str, memories: Memories) -> None:
    _fill(memories, store_id)
    with small.client(max_retries=2) as retrying, pytest.raises(anthropic.BadRequestError) as caught:
        retrying.beta.memory_stores.memories.create(store_id, path="/one-more", content="")
    assert caught.value.request.headers["x-stainless-retry-count"] == "0"
