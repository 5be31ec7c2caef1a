"""Moves: a directory goes to another place as a whole, or not at all."""

from typing import Any

import anthropic
import httpx2
import pytest
from anthropic.resources.beta.memory_stores import Memories, MemoryVersions
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store
from anthropic.types.beta.memory_stores import BetaManagedAgentsMemory as Memory

from tests.contract.conftest import SessionMaker, bare_http
from tests.contract.shapes import MEMORY_KEYS, PATH_CONFLICT, check_refusal


def move(http: httpx2.Client, store: Store, source: str, target: str) -> httpx2.Response:
    return http.post(f"/v1/memory_stores/{store.id}/moves", json={"from": source, "to": target})


def moved(http: httpx2.Client, store: Store, source: str, target: str) -> list[dict[str, Any]]:
    """The memories of a move that is accepted."""
    response = move(http, store, source, target)
    assert response.status_code == 200, response.text
    body = response.json()
    assert body.keys() == {"type", "data"}
    assert body["type"] == "memory_move"
    assert all(set(memory) == MEMORY_KEYS and memory["content"] is None for memory in body["data"])
    data: list[dict[str, Any]] = body["data"]
    return data


def fill(memories: Memories, store: Store, *paths: str) -> dict[str, str]:
    """Memories at these paths, each with its path as content; the IDs by path."""
    return {path: memories.create(store.id, path=path, content=path).id for path in paths}


def found(memories: Memories, store: Store) -> dict[str, Memory]:
    """The memories by ID."""
    return {memory.id: memory for memory in memories.list(store.id, view="full") if memory.type == "memory"}


def tree(memories: Memories, store: Store) -> dict[str, str]:
    """The IDs by path."""
    return {memory.path: memory.id for memory in found(memories, store).values()}


def test_everything_below_moves_and_nothing_else(
    http: httpx2.Client, store: Store, memories: Memories, versions: MemoryVersions
) -> None:
    made = fill(memories, store, "/a/x", "/a/y/z", "/a0", "/a.md", "/b", "/ab/x")
    before = found(memories, store)
    data = moved(http, store, "/a/", "/c/d/")
    assert tree(memories, store) == {
        "/c/d/x": made["/a/x"],
        "/c/d/y/z": made["/a/y/z"],
        **{path: made[path] for path in ("/a0", "/a.md", "/b", "/ab/x")},
    }
    assert [memory["path"] for memory in data] == ["/c/d/x", "/c/d/y/z"]
    for memory in data:
        now = memories.retrieve(memory["id"], memory_store_id=store.id).to_dict(mode="json")
        assert memory == {**now, "content": None}
        assert now["content"] == before[memory["id"]].content
        assert memory["created_at"] == before[memory["id"]].to_dict(mode="json")["created_at"]


def test_each_memory_gets_one_version_and_the_numbers_follow_each_other(
    http: httpx2.Client, store: Store, memories: Memories
) -> None:
    made = fill(memories, store, "/a/2", "/a/10", "/a/1")
    data = moved(http, store, "/a/", "/b/")
    body = http.get(f"/v1/memory_stores/{store.id}/changes", params={"after": 3}).json()
    assert [(change["seq"], change["operation"], change["path"]) for change in body["data"]] == [
        (4, "modified", "/b/1"),
        (5, "modified", "/b/10"),
        (6, "modified", "/b/2"),
    ]
    assert body["last_seq"] == 6
    assert [change["memory_version_id"] for change in body["data"]] == [memory["memory_version_id"] for memory in data]
    assert [change["memory_id"] for change in body["data"]] == [made[f"/a/{name}"] for name in (1, 10, 2)]
    assert [change["content_sha256"] for change in body["data"]] == [memory["content_sha256"] for memory in data]


def test_a_move_into_a_directory_that_is_there_joins_it(http: httpx2.Client, store: Store, memories: Memories) -> None:
    fill(memories, store, "/a/x", "/b/y", "/b/d/z")
    moved(http, store, "/a/", "/b/")
    assert set(tree(memories, store)) == {"/b/x", "/b/y", "/b/d/z"}


@pytest.mark.parametrize(
    ("other", "conflict"),
    [
        ("/b/x/y", "/b/x/y"),  # at the path itself
        ("/b/x", "/b/x"),  # above it
        ("/b/x/y/z", "/b/x/y"),  # below it
        ("/b", "/b/first"),  # above the target
    ],
)
def test_one_memory_in_the_way_stops_the_whole_move(
    http: httpx2.Client, store: Store, memories: Memories, other: str, conflict: str
) -> None:
    made = fill(memories, store, "/a/first", "/a/x/y", other)
    error = check_refusal(move(http, store, "/a/", "/b/"), 409, PATH_CONFLICT)
    assert error["conflicting_memory_id"] == made[other]
    assert error["conflicting_path"] == other
    assert repr("/b/first" if other == "/b" else "/b/x/y") in error["message"]
    assert conflict  # what the case is about
    assert tree(memories, store) == made
    assert http.get(f"/v1/memory_stores/{store.id}/changes").json()["last_seq"] == 3


def test_a_directory_moves_up_even_where_old_and_new_paths_overlap(
    http: httpx2.Client, store: Store, memories: Memories
) -> None:
    made = fill(memories, store, "/a/a/a/x", "/a/a/x", "/a/a/y", "/a/b")
    moved(http, store, "/a/a/", "/a/")
    assert tree(memories, store) == {
        "/a/a/x": made["/a/a/a/x"],
        "/a/x": made["/a/a/x"],
        "/a/y": made["/a/a/y"],
        "/a/b": made["/a/b"],
    }
    moved(http, store, "/a/", "/")
    assert set(tree(memories, store)) == {"/a/x", "/x", "/y", "/b"}


def test_moving_up_still_meets_what_stays(http: httpx2.Client, store: Store, memories: Memories) -> None:
    made = fill(memories, store, "/a/a/x", "/a/x")
    error = check_refusal(move(http, store, "/a/a/", "/a/"), 409, PATH_CONFLICT)
    assert error["conflicting_memory_id"] == made["/a/x"]


def test_to_the_same_place_changes_nothing(http: httpx2.Client, store: Store, memories: Memories) -> None:
    fill(memories, store, "/a/x")
    (memory,) = moved(http, store, "/a/", "/a/")
    assert memory["path"] == "/a/x"
    assert http.get(f"/v1/memory_stores/{store.id}/changes").json()["last_seq"] == 1


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"from": "/a/", "to": "/a/b/"}, "to: '/a/b/' is inside '/a/'"),
        ({"from": "/", "to": "/b/"}, "to: '/b/' is inside '/'"),
        ({"from": "/a", "to": "/b/"}, "from: must start and end with '/'"),
        ({"from": "/a/", "to": "/b"}, "to: must start and end with '/'"),
        ({"from": "a/", "to": "/b/"}, "from: must start and end with '/'"),
        ({"from": "/a//", "to": "/b/"}, "from: has an empty segment"),
        ({"from": "/a/", "to": "/../"}, "to: has the segment '..'"),
        ({"from": "/a/", "to": "/b\u200b/"}, "to: contains U+200B"),
        ({"from": "/a/", "to": "/" + "b/" * 20}, "to: has 21 segments"),
        ({"from": "/a/", "to": f"/{'b' * 1_022}/"}, "to: is 1,025 bytes"),
        ({"from": "/a/"}, "to: "),
        ({"to": "/a/"}, "from: "),
        ({"from": "/a/", "to": None}, "to: "),
        ({"from": "/a/", "to": "/b/", "overwrite": True}, "overwrite: "),
    ],
)
def test_what_breaks_a_rule_is_400_and_moves_nothing(
    http: httpx2.Client, store: Store, memories: Memories, body: dict[str, Any], told: str
) -> None:
    made = fill(memories, store, "/a/x")
    response = http.post(f"/v1/memory_stores/{store.id}/moves", json=body)
    assert check_refusal(response, 400)["message"].startswith(told)
    assert tree(memories, store) == made


def test_nothing_below_is_404(http: httpx2.Client, store: Store, memories: Memories) -> None:
    fill(memories, store, "/a", "/ab/x")
    assert "nothing is below '/a/'" in check_refusal(move(http, store, "/a/", "/b/"), 404)["message"]


def test_an_archived_store_is_refused(
    client: anthropic.Anthropic, http: httpx2.Client, store: Store, memories: Memories
) -> None:
    made = fill(memories, store, "/a/x")
    client.beta.memory_stores.archive(store.id)
    assert "is archived" in check_refusal(move(http, store, "/a/", "/b/"), 400)["message"]
    assert tree(memories, store) == made


def test_another_workspaces_store_is_not_there(
    guest: anthropic.Anthropic, http: httpx2.Client, store: Store, memories: Memories
) -> None:
    made = fill(memories, store, "/a/x")
    with httpx2.Client(base_url=guest.base_url, headers={"x-api-key": str(guest.api_key)}, trust_env=False) as other:
        check_refusal(move(other, store, "/a/", "/b/"), 404)
    assert tree(memories, store) == made


@pytest.mark.parametrize(("access", "status"), [("read_write", 200), ("read_only", 403)])
def test_a_session_moves_only_what_it_may_write(
    open_session: SessionMaker, store: Store, memories: Memories, access: str, status: int
) -> None:
    made = fill(memories, store, "/a/x")
    session = open_session({"type": "memory_store", "memory_store_id": store.id, "access": access})
    with bare_http(open_session.server, x_api_key=open_session.token(session.id)["token"]) as agent:
        assert move(agent, store, "/a/", "/b/").status_code == status
    assert tree(memories, store) == {"/b/x" if status == 200 else "/a/x": made["/a/x"]}


def test_many_memories_move_at_once(http: httpx2.Client, store: Store, memories: Memories) -> None:
    made = fill(memories, store, *(f"/a/{number}" for number in range(300)))
    assert len(moved(http, store, "/a/", "/b/")) == 300
    assert tree(memories, store) == {path.replace("/a/", "/b/"): memory_id for path, memory_id in made.items()}


def test_a_moved_memory_is_read_written_and_deleted_as_before(
    http: httpx2.Client, store: Store, memories: Memories
) -> None:
    (memory_id,) = fill(memories, store, "/a/x").values()
    moved(http, store, "/a/", "/b/")
    memories.update(memory_id, memory_store_id=store.id, content="new")
    assert memories.retrieve(memory_id, memory_store_id=store.id).content == "new"
    memories.delete(memory_id, memory_store_id=store.id)
    assert tree(memories, store) == {}
