"""A path is a memory or a directory, never both, and is used once (parts 2.4 and 4.2)."""

import anthropic
import pytest
from anthropic.resources.beta.memory_stores import Memories
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from tests.contract.shapes import PATH_CONFLICT, refused
from tests.support.servers import Server

# An existing path, and one that can't exist beside it.
CONFLICTS = [
    pytest.param("/a/b", "/a/b", id="the-same-path"),
    pytest.param("/a", "/a/b", id="below-a-memory"),
    pytest.param("/a", "/a/b/c/d", id="far-below-a-memory"),
    pytest.param("/a/b", "/a/b/c", id="below-a-deep-memory"),
    pytest.param("/a/b", "/a", id="above-a-memory"),
    pytest.param("/a/b/c/d", "/a", id="far-above-a-memory"),
    pytest.param("/a/b/c/d", "/a/b", id="between"),
    pytest.param("/%", "/%/x", id="below-a-wildcard-name"),
    pytest.param("/é/x", "/é", id="above-a-non-ascii-memory"),
]

# An existing path, and one that only looks as if it were in the way.
NEIGHBOURS = [
    ("/a", "/b"),
    ("/a", "/ab"),
    ("/a", "/ab/c"),
    ("/a/b", "/a/c"),
    ("/a/b", "/a/bc"),
    ("/a/bc", "/a/b"),
    ("/a/b", "/a/b.md"),
    ("/a/b", "/a!"),
    ("/a/b", "/a0"),
    ("/a", "/A/b"),
    ("/a_", "/ab/c"),
    ("/ab/c", "/a_"),
    ("/x/y", "/%"),
    ("/%", "/x/y"),
    ("/a\\", "/a/b"),
    ("/b/a", "/a"),
]


@pytest.mark.parametrize(("existing", "wanted"), CONFLICTS)
def test_create_is_refused_where_a_memory_is_in_the_way(
    store: Store, memories: Memories, existing: str, wanted: str
) -> None:
    blocker = memories.create(store.id, path=existing, content="first")
    with refused(409, PATH_CONFLICT) as refusal:
        memories.create(store.id, path=wanted, content="second")

    assert refusal.error["conflicting_memory_id"] == blocker.id
    assert refusal.error["conflicting_path"] == existing
    assert refusal.response.headers["x-should-retry"] == "false"
    assert memories.list(store.id, view="full").data == [memories.retrieve(blocker.id, memory_store_id=store.id)]


@pytest.mark.parametrize(("existing", "wanted"), CONFLICTS)
def test_rename_is_refused_where_another_memory_is_in_the_way(
    store: Store, memories: Memories, existing: str, wanted: str
) -> None:
    blocker = memories.create(store.id, path=existing, content="first")
    mover = memories.create(store.id, path="/mover", content="second")
    with refused(409, PATH_CONFLICT) as refusal:
        memories.update(mover.id, memory_store_id=store.id, path=wanted, content="changed")

    assert refusal.error["conflicting_memory_id"] == blocker.id
    assert refusal.error["conflicting_path"] == existing
    assert refusal.response.headers["x-should-retry"] == "false"
    unchanged = memories.retrieve(mover.id, memory_store_id=store.id)
    assert (unchanged.path, unchanged.content) == ("/mover", "second")
    assert unchanged.memory_version_id == mover.memory_version_id


@pytest.mark.parametrize(("existing", "wanted"), NEIGHBOURS)
def test_paths_that_only_look_alike_do_not_conflict(
    store: Store, memories: Memories, existing: str, wanted: str
) -> None:
    memories.create(store.id, path=existing, content="1")
    created = memories.create(store.id, path=wanted, content="2")
    assert created.path == wanted
    memories.update(created.id, memory_store_id=store.id, path="/elsewhere/entirely")
    assert memories.update(created.id, memory_store_id=store.id, path=wanted).path == wanted


def test_one_of_several_memories_below_is_named(store: Store, memories: Memories) -> None:
    below = {memories.create(store.id, path=f"/a/{name}", content="x").id: f"/a/{name}" for name in "bcd"}
    with refused(409, PATH_CONFLICT) as refusal:
        memories.create(store.id, path="/a", content="x")
    assert below[refusal.error["conflicting_memory_id"]] == refusal.error["conflicting_path"]


@pytest.mark.parametrize(("before", "after"), [("/a", "/a/b"), ("/a", "/a/b/c"), ("/a/b", "/a"), ("/a/b/c", "/a")])
def test_a_memory_is_not_in_its_own_way(store: Store, memories: Memories, before: str, after: str) -> None:
    memory = memories.create(store.id, path=before, content="x")
    moved = memories.update(memory.id, memory_store_id=store.id, path=after)
    assert (moved.id, moved.path) == (memory.id, after)
    assert [item.path for item in memories.list(store.id)] == [after]


def test_a_memory_can_not_take_the_place_of_its_directory_while_others_are_in_it(
    store: Store, memories: Memories
) -> None:
    memory = memories.create(store.id, path="/a/b", content="x")
    sibling = memories.create(store.id, path="/a/c", content="x")
    with refused(409, PATH_CONFLICT) as refusal:
        memories.update(memory.id, memory_store_id=store.id, path="/a")
    assert refusal.error["conflicting_memory_id"] == sibling.id
    assert refusal.error["conflicting_path"] == "/a/c"


def test_a_deleted_or_moved_memory_frees_its_path(store: Store, memories: Memories) -> None:
    deleted = memories.create(store.id, path="/a", content="x")
    memories.delete(deleted.id, memory_store_id=store.id)
    below = memories.create(store.id, path="/a/b", content="x")
    memories.update(below.id, memory_store_id=store.id, path="/elsewhere")
    again = memories.create(store.id, path="/a", content="x")
    assert again.id not in (deleted.id, below.id)


def test_two_memories_can_swap_their_paths_through_a_third_name(store: Store, memories: Memories) -> None:
    one = memories.create(store.id, path="/one", content="1")
    two = memories.create(store.id, path="/two", content="2")
    memories.update(one.id, memory_store_id=store.id, path="/between")
    memories.update(two.id, memory_store_id=store.id, path="/one")
    memories.update(one.id, memory_store_id=store.id, path="/two")
    assert [(item.path, item.type == "memory" and item.id) for item in memories.list(store.id)] == [
        ("/one", two.id),
        ("/two", one.id),
    ]


def test_a_conflict_costs_the_sdk_one_request(server: Server, store: Store, memories: Memories) -> None:
    memories.create(store.id, path="/a", content="x")
    with server.client(max_retries=2) as retrying, pytest.raises(anthropic.ConflictError) as caught:
        retrying.beta.memory_stores.memories.create(store.id, path="/a", content="x")
    assert caught.value.request.headers["x-stainless-retry-count"] == "0"
