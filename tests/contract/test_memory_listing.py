"""Listing memories: prefixes, depth, order, page sizes and the cap of full pages (part 2.8)."""

from typing import Any

import httpx2
import pytest
from anthropic.resources.beta.memory_stores import Memories
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store
from anthropic.types.beta.memory_stores import BetaManagedAgentsMemory as Memory

from tests.contract.shapes import check_refusal

TREE = [
    "/a!",
    "/a-b/c",
    "/a/b",
    "/a/b.md",
    "/a/c/d",
    "/a/c/e/f",
    "/a0",
    "/é",
    "/\U0001f989/nest",
]
LOOKALIKES = ["/notes-archive/todo.md", "/notes/todo.md", "/notes.md", "/notesx", "/Notes/todo.md"]


def _fill(memories: Memories, store: Store, paths: list[str]) -> None:
    for path in paths:
        memories.create(store.id, path=path, content=path)


def _paths(memories: Memories, store: Store, **query: Any) -> list[str]:
    return [item.path for item in memories.list(store.id, **query)]


@pytest.fixture
def tree(store: Store, memories: Memories) -> Store:
    _fill(memories, store, sorted(TREE, reverse=True))
    return store


def test_an_empty_store_lists_nothing(store: Store, memories: Memories) -> None:
    page = memories.list(store.id)
    assert (page.data, page.next_page) == ([], None)


def test_paths_are_listed_in_byte_order(store: Store, memories: Memories) -> None:
    # U+FFFD sorts before U+1F989 by bytes, and after it in UTF-16; "Z" before "a", and after it by locale.
    paths = ["/Z", "/a b", "/a-b", "/a.b", "/a/x", "/a0", "/a_b", "/b", "/é", "/\ufffd", "/\U0001f989"]
    _fill(memories, store, paths[::-1])
    assert _paths(memories, store) == sorted(paths, key=str.encode) == paths


@pytest.mark.parametrize("depth", [None, 0])
def test_without_depth_every_memory_below_the_prefix_is_listed(
    tree: Store, memories: Memories, depth: int | None
) -> None:
    query = {} if depth is None else {"depth": depth}
    assert _paths(memories, tree, **query) == TREE
    assert _paths(memories, tree, path_prefix="/", **query) == TREE
    assert _paths(memories, tree, path_prefix="/a/", **query) == TREE[2:6]
    assert _paths(memories, tree, path_prefix="/a/c/e/", **query) == ["/a/c/e/f"]


def test_depth_one_rolls_deeper_memories_up_once_at_their_place(tree: Store, memories: Memories) -> None:
    assert _paths(memories, tree, depth=1) == ["/a!", "/a-b/", "/a/", "/a0", "/é", "/\U0001f989/"]
    assert _paths(memories, tree, depth=1, path_prefix="/a/") == ["/a/b", "/a/b.md", "/a/c/"]
    assert _paths(memories, tree, depth=1, path_prefix="/a/c/") == ["/a/c/d", "/a/c/e/"]
    types = [item.type for item in memories.list(tree.id, depth=1)]
    assert types == ["memory", "memory_prefix", "memory_prefix", "memory", "memory", "memory_prefix"]


def test_passing_prefixes_back_walks_the_whole_store(tree: Store, memories: Memories) -> None:
    def walk(prefix: str) -> list[str]:
        found = []
        for item in memories.list(tree.id, path_prefix=prefix, depth=1):
            found += [item.path] if item.type == "memory" else walk(item.path)
        return found

    assert walk("/") == TREE


def test_a_prefix_matches_whole_segments_only(store: Store, memories: Memories) -> None:
    _fill(memories, store, LOOKALIKES)
    assert _paths(memories, store, path_prefix="/notes/") == ["/notes/todo.md"]
    assert _paths(memories, store, path_prefix="/note/") == []


@pytest.mark.parametrize("prefix", ["/%/", "/a_/", "/*/", "/'/", "/\\/"])
def test_a_prefix_is_no_pattern(store: Store, memories: Memories, prefix: str) -> None:
    _fill(memories, store, ["/ab/c", f"{prefix}mine"])
    assert _paths(memories, store, path_prefix=prefix) == [f"{prefix}mine"]
    assert _paths(memories, store, path_prefix=prefix, depth=1) == [f"{prefix}mine"]


@pytest.mark.parametrize("prefix", ["/nowhere/", "/a!/", "/a/b/", "/a/b.md/", "/A/", "/a/c/e/f/"])
def test_a_prefix_that_holds_nothing_gives_an_empty_page(tree: Store, memories: Memories, prefix: str) -> None:
    for depth in (0, 1):
        page = memories.list(tree.id, path_prefix=prefix, depth=depth)
        assert (page.data, page.next_page) == ([], None)


@pytest.mark.parametrize("prefix", ["a", "a/", "/a", "notes", "//", "/a//", "/a/../", "/./", "/a\0/", "/%C0/"])
def test_a_prefix_must_start_and_end_with_a_slash_and_hold_whole_segments(
    tree: Store, http: httpx2.Client, prefix: str
) -> None:
    if prefix == "/%C0/":  # bytes that are no UTF-8
        response = http.get(f"/v1/memory_stores/{tree.id}/memories?path_prefix={prefix}")
    else:
        response = http.get(f"/v1/memory_stores/{tree.id}/memories", params={"path_prefix": prefix})
    check_refusal(response, 400)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("depth", "2"),
        ("depth", "-1"),
        ("depth", "x"),
        ("depth", ""),
        ("depth", "1.0"),
        ("depth", "true"),
        ("limit", "0"),
        ("limit", "-1"),
        ("limit", "101"),
        ("limit", "x"),
        ("limit", "1.5"),
        ("limit", "5.0"),
        ("limit", "1_0"),
        ("limit", ""),
        ("limit", "9" * 5000),
    ],
)
def test_a_value_out_of_range_is_refused(store: Store, http: httpx2.Client, parameter: str, value: str) -> None:
    response = http.get(f"/v1/memory_stores/{store.id}/memories", params={parameter: value})
    assert parameter in check_refusal(response, 400)["message"]


def test_page_sizes_and_the_cap_of_full_pages(store: Store, memories: Memories) -> None:
    paths = [f"/{number:03}" for number in range(25)]
    _fill(memories, store, paths)

    assert len(memories.list(store.id).data) == 20
    assert len(memories.list(store.id, limit=1).data) == 1
    assert len(memories.list(store.id, limit=24).data) == 24
    for exact in (25, 100):
        page = memories.list(store.id, limit=exact)
        assert (len(page.data), page.next_page) == (25, None)

    for limit in (20, 21, 100):
        capped = memories.list(store.id, limit=limit, view="full")
        assert [item.path for item in capped.data] == paths[:20]
        assert capped.next_page is not None
        rest = memories.list(store.id, limit=limit, view="full", page=capped.next_page)
        assert [item.path for item in rest.data] == paths[20:]
        assert rest.next_page is None
    whole = [item for item in memories.list(store.id, limit=100, view="full") if isinstance(item, Memory)]
    assert [memory.content for memory in whole] == paths


def test_rolled_up_prefixes_count_toward_the_limit(store: Store, memories: Memories) -> None:
    paths = [f"/{number:02}/{child}" for number in range(22) for child in "ab"]
    _fill(memories, store, paths)
    directories = [f"/{number:02}/" for number in range(22)]

    page = memories.list(store.id, depth=1)
    assert [item.path for item in page.data] == directories[:20]
    full = memories.list(store.id, depth=1, view="full", limit=100)
    assert [item.path for item in full.data] == directories[:20]
    basic = memories.list(store.id, depth=1, limit=100)
    assert [item.path for item in basic.data] == directories


@pytest.mark.parametrize("ignored", ["order_by=path", "order_by=updated_at", "order=desc", "beta=true"])
def test_the_old_ordering_parameters_are_ignored(tree: Store, http: httpx2.Client, ignored: str) -> None:
    response = http.get(f"/v1/memory_stores/{tree.id}/memories?{ignored}")
    assert response.status_code == 200
    assert [item["path"] for item in response.json()["data"]] == TREE


def test_the_listing_follows_renames_and_deletes(tree: Store, memories: Memories) -> None:
    by_path = {item.path: item for item in memories.list(tree.id) if isinstance(item, Memory)}
    memories.update(by_path["/a0"].id, memory_store_id=tree.id, path="/a/z")
    memories.delete(by_path["/a-b/c"].id, memory_store_id=tree.id)
    assert _paths(memories, tree, depth=1) == ["/a!", "/a/", "/é", "/\U0001f989/"]
    assert _paths(memories, tree, path_prefix="/a/", depth=1)[-1] == "/a/z"


@pytest.mark.parametrize("depth", [0, 1])
def test_paging_neither_repeats_nor_drops_an_untouched_memory_while_others_change(
    store: Store, memories: Memories, depth: int
) -> None:
    # Between the pages, the memory that the cursor ended on is deleted; others appear before and after it.
    _fill(memories, store, ["/b", "/d", "/f/1", "/f/2", "/h", "/j"])
    first = memories.list(store.id, limit=2, depth=depth)
    assert [item.path for item in first.data] == ["/b", "/d"]
    last = first.data[-1]
    assert isinstance(last, Memory)
    memories.delete(last.id, memory_store_id=store.id)
    _fill(memories, store, ["/a", "/c", "/d/x", "/e", "/i"])
    assert first.next_page is not None
    rest = [item.path for item in memories.list(store.id, limit=2, depth=depth, page=first.next_page)]

    untouched = ["/f/1", "/f/2", "/h", "/j"] if depth == 0 else ["/f/", "/h", "/j"]
    assert [path for path in rest if path in untouched] == untouched
    assert rest == sorted(rest, key=str.encode)
    assert not {"/a", "/b", "/c"} & set(rest)
    assert {"/e", "/i"} <= set(rest)


def test_paging_over_roll_ups_survives_the_deletion_of_the_directory_the_cursor_ended_on(
    store: Store, memories: Memories
) -> None:
    doomed = [memories.create(store.id, path=path, content="") for path in ("/b/1", "/b/2")]
    _fill(memories, store, ["/a", "/b-c", "/b.d", "/b0", "/c/1"])
    first = memories.list(store.id, depth=1, limit=4)
    assert [item.path for item in first.data] == ["/a", "/b-c", "/b.d", "/b/"]
    for memory in doomed:
        memories.delete(memory.id, memory_store_id=store.id)
    assert first.next_page is not None
    rest = memories.list(store.id, depth=1, page=first.next_page)
    assert [item.path for item in rest.data] == ["/b0", "/c/"]


def test_the_empty_prefix_is_the_whole_store(http: httpx2.Client, memories: Memories, tree: Store) -> None:
    assert _paths(memories, tree, path_prefix="") == TREE
    assert _paths(memories, tree, path_prefix="", depth=1) == _paths(memories, tree, path_prefix="/", depth=1)
    url = f"/v1/memory_stores/{tree.id}"
    for query in ("path_prefix=", "path_prefix"):
        whole = http.get(f"{url}/memories?{query}&limit=100")
        assert whole.status_code == 200, whole.text
        assert [item["path"] for item in whole.json()["data"]] == TREE
    past = http.get(f"{url}/as_of/memories", params={"seq": len(TREE), "path_prefix": "", "limit": 100})
    assert past.status_code == 200, past.text
    assert [item["path"] for item in past.json()["data"]] == TREE
    # A cursor of the one continues the other.
    page = http.get(f"{url}/memories?path_prefix=&limit=2").json()["next_page"]
    rest = http.get(f"{url}/memories", params={"limit": 100, "page": page})
    assert [item["path"] for item in rest.json()["data"]] == TREE[2:]
    # To move, a directory is named.
    for move in ({"from": "", "to": "/b/"}, {"from": "/a/", "to": ""}):
        check_refusal(http.post(f"{url}/moves", json=move), 400)
