"""Name, description and metadata at and over each bound (part 1.3). Lengths count code points."""

import json
from typing import Any

import httpx2
import pytest
from anthropic.resources.beta.memory_stores import MemoryStores
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from tests.contract.shapes import check_refusal, refused

# One code point, two UTF-16 units, four bytes of UTF-8.
WIDE = "\U0001f989"

GOOD_NAMES = {
    "one-character": "x",
    "255-characters": "x" * 255,
    "255-wide-characters": WIDE * 255,
    "spaces-kept": "  spaced  ",
    "no-break-space": "\u00a0",
    "joined-emoji": "\U0001f469\u200d\U0001f52c",
    "decomposed": "Cafe\u0301",
    "markup": "<b>&\"'\\%_",
}
BAD_NAMES = {
    "empty": "",
    "256-characters": "x" * 256,
    "256-wide-characters": WIDE * 256,
    "nul": "a\0b",
    "newline": "a\nb",
    "tab": "a\tb",
    "escape": "a\x1bb",
    "delete": "a\x7fb",
    "c1-control": "a\x85b",
}
GOOD_DESCRIPTIONS = {
    "empty": "",
    "1024-characters": "x" * 1024,
    "1024-wide-characters": WIDE * 1024,
    "control-characters": "line one\nline two\ttabbed\x1b",
}
BAD_DESCRIPTIONS = {
    "1025-characters": "x" * 1025,
    "1025-wide-characters": WIDE * 1025,
    "nul": "a\0b",
}
GOOD_METADATA: dict[str, dict[str, str]] = {
    "none": {},
    "16-pairs": {f"k{number}": "v" for number in range(16)},
    "64-character-key": {"k" * 64: "v"},
    "64-wide-character-key": {WIDE * 64: "v"},
    "one-character-key": {"k": "v"},
    "512-character-value": {"k": "v" * 512},
    "512-wide-character-value": {"k": WIDE * 512},
    "empty-value": {"k": ""},
    "control-characters": {"k\n": "v\n"},
}
BAD_METADATA: dict[str, dict[str, str]] = {
    "17-pairs": {f"k{number}": "v" for number in range(17)},
    "65-character-key": {"k" * 65: "v"},
    "empty-key": {"": "v"},
    "513-character-value": {"k": "v" * 513},
    "513-wide-character-value": {"k": WIDE * 513},
    "nul-in-key": {"k\0": "v"},
    "nul-in-value": {"k": "v\0"},
}


@pytest.mark.parametrize("name", GOOD_NAMES.values(), ids=GOOD_NAMES.keys())
def test_a_name_within_the_rules_is_kept_verbatim(stores: MemoryStores, name: str) -> None:
    store = stores.create(name=name)
    assert store.name == name
    other = stores.update(store.id, name="between")
    assert stores.update(other.id, name=name).name == name
    assert stores.retrieve(store.id).name == name
    stores.delete(store.id)


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES.keys())
def test_a_name_outside_the_rules_is_refused(store: Store, stores: MemoryStores, name: str) -> None:
    with refused(400) as created:
        stores.create(name=name)
    assert "name" in created.error["message"]
    with refused(400):
        stores.update(store.id, name=name)
    assert stores.retrieve(store.id) == store


@pytest.mark.parametrize("description", GOOD_DESCRIPTIONS.values(), ids=GOOD_DESCRIPTIONS.keys())
def test_a_description_within_the_rules_is_kept_verbatim(stores: MemoryStores, description: str) -> None:
    store = stores.create(name="x", description=description)
    assert store.description == description
    stores.update(store.id, description="between")
    assert stores.update(store.id, description=description).description == description
    assert stores.retrieve(store.id).description == description
    stores.delete(store.id)


@pytest.mark.parametrize("description", BAD_DESCRIPTIONS.values(), ids=BAD_DESCRIPTIONS.keys())
def test_a_description_outside_the_rules_is_refused(store: Store, stores: MemoryStores, description: str) -> None:
    with refused(400) as created:
        stores.create(name="x", description=description)
    assert "description" in created.error["message"]
    with refused(400):
        stores.update(store.id, description=description)
    assert stores.retrieve(store.id) == store


@pytest.mark.parametrize("metadata", GOOD_METADATA.values(), ids=GOOD_METADATA.keys())
def test_metadata_within_the_rules_is_kept_verbatim(stores: MemoryStores, metadata: dict[str, str]) -> None:
    store = stores.create(name="x", metadata=metadata)
    assert store.metadata == metadata
    assert stores.retrieve(store.id).metadata == metadata
    empty = stores.create(name="y")
    assert stores.update(empty.id, metadata={**metadata}).metadata == metadata
    stores.delete(store.id)
    stores.delete(empty.id)


@pytest.mark.parametrize("metadata", BAD_METADATA.values(), ids=BAD_METADATA.keys())
def test_metadata_outside_the_rules_is_refused(store: Store, stores: MemoryStores, metadata: dict[str, str]) -> None:
    with refused(400) as created:
        stores.create(name="x", metadata=metadata)
    assert "metadata" in created.error["message"]
    with refused(400):
        stores.update(store.id, metadata={**metadata})
    assert stores.retrieve(store.id) == store


def test_metadata_updates_are_a_merge_patch(stores: MemoryStores) -> None:
    store = stores.create(name="x", metadata={"kept": "1", "replaced": "old", "removed": "1"})
    patched = stores.update(store.id, metadata={"replaced": "new", "removed": None, "added": ""})
    assert patched.metadata == {"kept": "1", "replaced": "new", "added": ""}
    assert stores.retrieve(store.id) == patched
    stores.delete(store.id)


def test_the_sixteen_pairs_are_counted_after_the_merge(stores: MemoryStores) -> None:
    full = {f"k{number}": "v" for number in range(16)}
    store = stores.create(name="x", metadata=full)
    with refused(400):
        stores.update(store.id, metadata={"one-more": "v"})
    assert stores.retrieve(store.id) == store

    swapped = stores.update(store.id, metadata={"k0": None, "one-more": "v"})
    assert swapped.metadata == {**{key: "v" for key in full if key != "k0"}, "one-more": "v"}
    replaced = stores.update(store.id, metadata={"k1": "other"})
    assert len(replaced.metadata) == 16
    stores.delete(store.id)


def test_an_update_is_refused_as_a_whole(store: Store, stores: MemoryStores) -> None:
    with refused(400):
        stores.update(store.id, name="good", description="x" * 1025)
    assert stores.retrieve(store.id) == store


@pytest.mark.parametrize(
    "body",
    [
        {"name": 5},
        {"name": None},
        {"name": ["x"]},
        {"name": "x", "description": 5},
        {"name": "x", "metadata": []},
        {"name": "x", "metadata": "k=v"},
        {"name": "x", "metadata": {"k": 5}},
        {"name": "x", "metadata": {"k": True}},
        {"name": "x", "metadata": {"k": {"nested": "v"}}},
        {"name": "x", "metadata": {"k": None}},
    ],
    ids=json.dumps,
)
def test_a_value_of_the_wrong_type_is_refused(http: httpx2.Client, body: dict[str, Any]) -> None:
    check_refusal(http.post("/v1/memory_stores", json=body), 400)


@pytest.mark.parametrize(
    "body",
    [{"name": 5}, {"description": 5}, {"metadata": []}, {"metadata": {"k": 5}}, {"metadata": {"k": ["v"]}}],
    ids=json.dumps,
)
def test_an_update_with_a_value_of_the_wrong_type_is_refused(
    store: Store, stores: MemoryStores, http: httpx2.Client, body: dict[str, Any]
) -> None:
    check_refusal(http.post(f"/v1/memory_stores/{store.id}", json=body), 400)
    assert stores.retrieve(store.id) == store
