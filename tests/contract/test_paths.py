"""Every rule of a path, at its bound and over it, on create and on rename (part 2.3)."""

import json

import httpx2
import pytest
from anthropic.resources.beta.memory_stores import Memories, MemoryStores
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from tests.contract.shapes import check_refusal, refused

LIMIT_BYTES = 1_024
WIDE = "\U0001f989"  # four bytes of UTF-8

GOOD = {
    "shortest": "/a",
    "twenty-segments": "/a" * 20,
    "1024-bytes": "/" + "x" * (LIMIT_BYTES - 1),
    "1024-bytes-in-twenty-segments": "/a" * 19 + "/" + "x" * (LIMIT_BYTES - 39),
    "1024-bytes-of-wide-characters": "/xxx" + WIDE * 255,
    "three-dots": "/...",
    "leading-dot": "/.hidden/.file",
    "dots-inside": "/a..b/c.",
    "dot-segments-with-more": "/. /.. /..a",
    "space": "/a b",
    "spaces-at-the-ends": "/ a / b ",
    "backslash": "/a\\b",
    "tilde": "/~/a",
    "colon": "/c:/x",
    "percent-escape": "/a%2Fb%00",
    "wildcards": "/%_*?[a]",
    "quotes": "/'\"`;--",
    "query-characters": "/a?b=c&d#e",
    "cjk": "/日本語/メモ",
    "composed": "/caf\u00e9",
    "emoji": f"/{WIDE}",
    "right-to-left-letters": "/\u05e9\u05dc\u05d5\u05dd",
    "combining-mark-without-composition": "/x\u0301",
    "no-break-space": "/a\u00a0b",
    "private-use": "/\ue000",
    "replacement-character": "/\ufffd",
    "marker-of-the-vendors-worker": "/.anthropic-memory-store",
    "prototype": "/__proto__/constructor",
}
BAD = {
    "empty": "",
    "slash-only": "/",
    "no-leading-slash": "a",
    "no-leading-slash-deep": "a/b",
    "backslash-for-slash": "\\a",
    "space-before-slash": " /a",
    "two-leading-slashes": "//a",
    "empty-segment": "/a//b",
    "trailing-slash": "/a/",
    "slashes-only": "//",
    "dot": "/.",
    "dot-dot": "/..",
    "dot-inside": "/a/./b",
    "dot-dot-inside": "/a/../b",
    "dot-at-the-end": "/a/.",
    "dot-dot-at-the-end": "/a/..",
    "twenty-one-segments": "/a" * 21,
    "1025-bytes": "/" + "x" * LIMIT_BYTES,
    "1025-bytes-of-wide-characters": "/" + WIDE * 256,
    "nul": "/a\0b",
    "newline": "/a\nb",
    "tab": "/a\tb",
    "carriage-return": "/a\r",
    "delete": "/a\x7f",
    "c1-control": "/a\x85",
    "soft-hyphen": "/a\u00adb",
    "arabic-number-sign": "/\u0600",
    "zero-width-space": "/a\u200bb",
    "zero-width-joiner": "/a\u200db",
    "left-to-right-mark": "/a\u200eb",
    "right-to-left-override": "/a\u202eb",
    "word-joiner": "/a\u2060b",
    "isolate": "/a\u2066b",
    "byte-order-mark": "/\ufeffa",
    "interlinear-annotation": "/\ufff9",
    "tag-character": "/a\U000e0041",
    "line-separator": "/a\u2028b",
    "paragraph-separator": "/a\u2029b",
    "decomposed": "/cafe\u0301",
    "singleton": "/\u212b",
    "decomposed-hangul": "/\u1112\u1161\u11ab",
    "marks-in-another-order": "/a\u0301\u0323",
}
SURROGATES = {
    "high": r'"/a\ud800"',
    "low": r'"/a\udc00"',
    "swapped": r'"/\udc00\ud800"',
    "before-a-letter": r'"/\ud83dx"',
}


@pytest.mark.parametrize("path", GOOD.values(), ids=GOOD.keys())
def test_a_path_within_the_rules_is_kept_verbatim(store: Store, memories: Memories, path: str) -> None:
    memory = memories.create(store.id, path=path, content="x")
    assert memory.path == path
    assert memories.retrieve(memory.id, memory_store_id=store.id).path == path
    assert [item.path for item in memories.list(store.id)] == [path]

    moved = memories.update(memory.id, memory_store_id=store.id, path="/elsewhere")
    assert moved.path == "/elsewhere"
    assert memories.update(memory.id, memory_store_id=store.id, path=path).path == path


@pytest.mark.parametrize("path", BAD.values(), ids=BAD.keys())
def test_a_path_outside_the_rules_is_refused(store: Store, memories: Memories, path: str) -> None:
    memory = memories.create(store.id, path="/kept", content="x")
    with refused(400) as created:
        memories.create(store.id, path=path, content="x")
    assert created.error["message"].startswith("path: ")
    with refused(400):
        memories.update(memory.id, memory_store_id=store.id, path=path)
    assert memories.list(store.id).data == [memory]


@pytest.mark.parametrize("escaped", SURROGATES.values(), ids=SURROGATES.keys())
def test_a_lone_surrogate_in_a_path_is_refused(
    store: Store, memories: Memories, http: httpx2.Client, escaped: str
) -> None:
    memory = memories.create(store.id, path="/kept", content="x")
    created = http.post(
        f"/v1/memory_stores/{store.id}/memories",
        headers={"content-type": "application/json"},
        content=f'{{"path": {escaped}, "content": ""}}',
    )
    check_refusal(created, 400)
    renamed = http.post(
        f"/v1/memory_stores/{store.id}/memories/{memory.id}",
        headers={"content-type": "application/json"},
        content=f'{{"path": {escaped}}}',
    )
    check_refusal(renamed, 400)
    assert memories.list(store.id).data == [memory]


def test_an_escaped_surrogate_pair_is_one_character(store: Store, http: httpx2.Client) -> None:
    response = http.post(
        f"/v1/memory_stores/{store.id}/memories?view=full",
        headers={"content-type": "application/json"},
        content=r'{"path": "/\ud83e\udd89", "content": "\ud83e\udd89"}',
    )
    assert response.status_code == 200
    assert (response.json()["path"], response.json()["content"]) == (f"/{WIDE}", WIDE)


@pytest.mark.parametrize("value", [None, 5, True, ["/a"], {"path": "/a"}], ids=json.dumps)
def test_a_path_must_be_a_string(store: Store, http: httpx2.Client, value: object) -> None:
    body = {"path": value, "content": "x"}
    check_refusal(http.post(f"/v1/memory_stores/{store.id}/memories", json=body), 400)


def test_paths_are_case_sensitive(store: Store, memories: Memories) -> None:
    lower = memories.create(store.id, path="/readme.md", content="lower")
    upper = memories.create(store.id, path="/README.md", content="upper")
    assert lower.id != upper.id
    assert [item.path for item in memories.list(store.id)] == ["/README.md", "/readme.md"]


def test_names_that_only_look_alike_are_different_paths(store: Store, memories: Memories) -> None:
    for path in ("/a", "/\u0430", "/a ", "/\uff41"):
        memories.create(store.id, path=path, content="x")
    assert len(memories.list(store.id).data) == 4


def test_the_same_path_may_be_used_in_two_stores(store: Store, stores: MemoryStores, memories: Memories) -> None:
    other = stores.create(name="other")
    assert memories.create(store.id, path="/a", content="x").path == "/a"
    assert memories.create(other.id, path="/a", content="x").path == "/a"
    stores.delete(other.id)


def test_a_bad_path_is_refused_before_the_store_is_looked_up(memories: Memories) -> None:
    with refused(400):
        memories.create("memstore_01" + "1" * 22, path="no-slash", content="x")
