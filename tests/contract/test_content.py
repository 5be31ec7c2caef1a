"""Content is any UTF-8 text of at most 102,400 bytes and comes back as it went in (parts 1.8, 2.1, 2.5)."""

import json

import httpx2
import pytest
from anthropic.resources.beta.memory_stores import Memories, MemoryVersions
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from tests.contract.shapes import check_refusal, refused, sha256

LIMIT_BYTES = 102_400

GOOD = {
    "empty": "",
    "at-the-limit": "x" * LIMIT_BYTES,
    "at-the-limit-in-two-byte-characters": "é" * (LIMIT_BYTES // 2),
    "at-the-limit-in-control-characters": "\x01" * LIMIT_BYTES,
    "nul": "before\0after",
    "nul-only": "\0",
    "no-final-newline": "one\ntwo",
    "final-newlines": "one\n\n\n",
    "windows-newlines": "one\r\ntwo\r\n",
    "old-mac-newlines": "one\rtwo\r",
    "line-separators": "one\u2028two\u2029three\x85four",
    "byte-order-mark": "\ufefftext",
    "decomposed": "cafe\u0301 \u212b",
    "emoji": "\U0001f469\u200d\U0001f52c",
    "non-characters": "\uffff\ufffe\U0010ffff",
    "replacement-character": "\ufffd",
    "blank": " \t\n ",
    "json-in-json": '{"content": "\\u0000 \\ud800 \\\\"}',
}
TOO_LARGE = {
    "one-byte-over": "x" * (LIMIT_BYTES + 1),
    "one-byte-over-in-two-byte-characters": "é" * (LIMIT_BYTES // 2) + "x",
    "wide-characters": "\U0001f989" * (LIMIT_BYTES // 4 + 1),
}


@pytest.mark.parametrize("content", GOOD.values(), ids=GOOD.keys())
def test_content_comes_back_as_it_went_in(
    store: Store, memories: Memories, versions: MemoryVersions, content: str
) -> None:
    created = memories.create(store.id, path="/created", content=content, view="full")
    other = memories.create(store.id, path="/updated", content="before")
    updated = memories.update(other.id, memory_store_id=store.id, content=content, view="full")

    for memory in (created, updated):
        assert memory.content == content
        assert memory.content_size_bytes == len(content.encode())
        assert memory.content_sha256 == sha256(content)
        assert memories.retrieve(memory.id, memory_store_id=store.id) == memory
        version = versions.retrieve(memory.memory_version_id, memory_store_id=store.id)
        assert (version.content, version.content_sha256) == (content, memory.content_sha256)
    assert memories.list(store.id, view="full").data == [created, updated]


@pytest.mark.parametrize("content", TOO_LARGE.values(), ids=TOO_LARGE.keys())
def test_content_over_the_limit_is_refused(store: Store, memories: Memories, content: str) -> None:
    memory = memories.create(store.id, path="/kept", content="kept")
    with refused(400) as created:
        memories.create(store.id, path="/new", content=content)
    assert "content" in created.error["message"]
    with refused(400):
        memories.update(memory.id, memory_store_id=store.id, content=content)
    assert memories.list(store.id).data == [memory]


def test_the_empty_content_has_the_digest_of_nothing(store: Store, memories: Memories) -> None:
    memory = memories.create(store.id, path="/empty", content="")
    assert memory.content_size_bytes == 0
    assert memory.content_sha256 == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert memories.retrieve(memory.id, memory_store_id=store.id).content == ""


def test_an_update_can_empty_a_memory(store: Store, memories: Memories) -> None:
    memory = memories.create(store.id, path="/a", content="text")
    emptied = memories.update(memory.id, memory_store_id=store.id, content="", view="full")
    assert (emptied.content, emptied.content_size_bytes) == ("", 0)


def test_content_is_required_on_create(store: Store, http: httpx2.Client) -> None:
    response = http.post(f"/v1/memory_stores/{store.id}/memories", json={"path": "/a"})
    assert check_refusal(response, 400)["message"] == "content: Field required"


def test_null_content_is_refused_on_create(store: Store, memories: Memories) -> None:
    with refused(400):
        memories.create(store.id, path="/a", content=None)
    assert memories.list(store.id).data == []


@pytest.mark.parametrize("value", [5, True, ["text"], {"text": "x"}], ids=json.dumps)
def test_content_must_be_a_string(store: Store, http: httpx2.Client, value: object) -> None:
    body = {"path": "/a", "content": value}
    check_refusal(http.post(f"/v1/memory_stores/{store.id}/memories", json=body), 400)


@pytest.mark.parametrize("escaped", [r"\ud800", r"x\udfff", r"\udc00\ud800", r"\ud800\u0041"])
def test_a_lone_surrogate_in_content_is_refused(
    store: Store, memories: Memories, http: httpx2.Client, escaped: str
) -> None:
    memory = memories.create(store.id, path="/kept", content="kept")
    headers = {"content-type": "application/json"}
    url = f"/v1/memory_stores/{store.id}/memories"
    body = f'{{"path": "/a", "content": "{escaped}"}}'
    check_refusal(http.post(url, headers=headers, content=body), 400)
    body = f'{{"content": "{escaped}"}}'
    check_refusal(http.post(f"{url}/{memory.id}", headers=headers, content=body), 400)
    assert memories.list(store.id).data == [memory]


def test_two_memories_may_hold_the_same_content(store: Store, memories: Memories) -> None:
    one = memories.create(store.id, path="/one", content="same")
    two = memories.create(store.id, path="/two", content="same")
    memories.delete(one.id, memory_store_id=store.id)
    assert memories.retrieve(two.id, memory_store_id=store.id).content == "same"
