"""Snapshots: all memories at one moment, from where the change feed goes on."""

import json
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic.resources.beta.memory_stores import Memories
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from tests.contract.shapes import MEMORY_KEYS, check_refusal, is_timestamp

Line = dict[str, Any]


def snapshot(http: httpx2.Client, store_id: str, **query: str) -> tuple[Line, list[Line]]:
    """The head and the memories, checked as far as every snapshot can be."""
    response = http.get(f"/v1/memory_stores/{store_id}/snapshot", params=query)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    assert response.headers["request-id"].startswith("req_")
    assert response.text.endswith("\n")
    head, *lines = map(json.loads, response.text.splitlines())
    assert set(head) == {"type", "memory_store_id", "seq", "count", "archived_at"}
    assert (head["type"], head["memory_store_id"], head["count"]) == ("memory_snapshot", store_id, len(lines))
    assert all(set(line) == MEMORY_KEYS for line in lines)
    paths = [line["path"].encode() for line in lines]
    assert paths == sorted(set(paths))
    return head, lines


def test_an_empty_store_is_a_head_alone(http: httpx2.Client, store: Store) -> None:
    head, lines = snapshot(http, store.id)
    assert (head["seq"], head["archived_at"], lines) == (0, None, [])


@pytest.mark.parametrize("view", ["basic", "full"])
def test_the_lines_are_the_memories_as_a_listing_shows_them(
    http: httpx2.Client, store: Store, memories: Memories, view: Any
) -> None:
    texts = {"/b.md": "b", "/a/ä.md": "größer ☃", "/a.md": "", "/a/b/c.md": "line\nline\u2028\u2029\x85\x0c\x1e\r\n"}
    for path, text in texts.items():
        memories.create(store.id, path=path, content=text)
    head, lines = snapshot(http, store.id, view=view)
    assert head["seq"] == len(texts)
    listed = http.get(f"/v1/memory_stores/{store.id}/memories", params={"view": view}).json()["data"]
    assert lines == listed
    assert {line["path"]: line["content"] for line in lines} == (
        texts if view == "full" else dict.fromkeys(texts, None)
    )


def test_the_content_is_left_out_unless_asked_for(http: httpx2.Client, store: Store, memories: Memories) -> None:
    memories.create(store.id, path="/a.md", content="text")
    assert [line["content"] for line in snapshot(http, store.id)[1]] == [None]


def test_a_deleted_memory_is_not_in_it_but_counts_in_the_number(
    http: httpx2.Client, store: Store, memories: Memories
) -> None:
    kept = memories.create(store.id, path="/kept.md", content="kept")
    gone = memories.create(store.id, path="/gone.md", content="gone")
    memories.delete(gone.id, memory_store_id=store.id)
    head, lines = snapshot(http, store.id)
    assert head["seq"] == 3
    assert [line["id"] for line in lines] == [kept.id]


def test_an_archived_store_says_so(client: anthropic.Anthropic, http: httpx2.Client, store: Store) -> None:
    archived = client.beta.memory_stores.archive(store.id)
    head, _ = snapshot(http, store.id)
    assert is_timestamp(head["archived_at"])
    assert archived.to_dict(mode="json")["archived_at"] == head["archived_at"]


def test_many_memories_come_whole(http: httpx2.Client, store: Store, memories: Memories) -> None:
    """More than one piece by number, and more than one by size."""
    for number in range(260):
        memories.create(store.id, path=f"/small/{number:03}.md", content=str(number))
    for number in range(24):
        memories.create(store.id, path=f"/large/{number:03}.md", content=f"{number} ".ljust(100_000, "x"))
    _, lines = snapshot(http, store.id, view="full")
    assert [line["path"] for line in lines[:24]] == [f"/large/{number:03}.md" for number in range(24)]
    assert all(line["content"].startswith(f"{number} ") for number, line in enumerate(lines[:24]))
    assert [line["content"] for line in lines[24:]] == [str(number) for number in range(260)]


def test_a_store_that_is_not_there_is_404(http: httpx2.Client, store: Store, guest: anthropic.Anthropic) -> None:
    check_refusal(http.get(f"/v1/memory_stores/{store.id[:-1]}/snapshot"), 404)
    with httpx2.Client(base_url=guest.base_url, headers={"x-api-key": str(guest.api_key)}, trust_env=False) as other:
        check_refusal(other.get(f"/v1/memory_stores/{store.id}/snapshot"), 404)


@pytest.mark.parametrize("query", ["view=all", "limit=1", "view=full&view=full"])
def test_a_query_that_means_nothing_is_400(http: httpx2.Client, store: Store, query: str) -> None:
    check_refusal(http.get(f"/v1/memory_stores/{store.id}/snapshot?{query}"), 400)
