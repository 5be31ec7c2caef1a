"""A cursor continues the listing it came from, with its filters, and no other (parts 0.1 and 2.8)."""

import base64
from collections.abc import Iterator

import anthropic
import httpx2
import pytest

from tests.contract.conftest import Credential, sign_in
from tests.contract.shapes import check_refusal, refused
from tests.support.servers import Server

GARBAGE = [
    "page_",
    "page_!!!",
    "page_AAAA",
    "page_" + base64.urlsafe_b64encode(b'{"path": "/a"}').decode(),
    "page_" + base64.urlsafe_b64encode(bytes(range(256))).decode(),
    "page_\u00e9",
    "page_\0",
    "nonsense",
    "1",
    "memstore_01" + "1" * 22,
    "page_" + "A" * 5000,
]


class Listings:
    """Two stores of two directories each in a workspace of its own, and a cursor into each listing."""

    def __init__(self, client: anthropic.Anthropic) -> None:
        self.stores = client.beta.memory_stores
        self.memories = self.stores.memories
        self.versions = self.stores.memory_versions
        self.store, self.other = (self._filled_store() for _ in range(2))
        self.into_stores = self._cursor(self.stores.list(limit=1).next_page)
        self.into_memories = self._cursor(self.memories.list(self.store, limit=1).next_page)
        self.into_versions = self._cursor(self.versions.list(self.store, limit=1).next_page)

    def _filled_store(self) -> str:
        store = self.stores.create(name="cursors")
        for path in ("/a/1", "/a/2", "/a/3", "/b/1", "/b/2", "/c"):
            self.memories.create(store.id, path=path, content=path)
        return store.id

    @staticmethod
    def _cursor(page: str | None) -> str:
        assert page is not None
        assert page.startswith("page_")
        return page


@pytest.fixture(scope="module")
def listings(server: Server, quiet_key: Credential) -> Iterator[Listings]:
    with sign_in(server, quiet_key.secret) as client:
        listings = Listings(client)
        yield listings
        for store_id in (listings.store, listings.other):
            listings.stores.delete(store_id)


def test_a_cursor_continues_with_another_page_size(listings: Listings) -> None:
    page = listings.memories.list(listings.store, page=listings.into_memories, limit=100)
    assert [item.path for item in page.data] == ["/a/2", "/a/3", "/b/1", "/b/2", "/c"]
    assert len(listings.versions.list(listings.store, page=listings.into_versions, limit=100).data) == 5
    assert len(listings.stores.list(page=listings.into_stores, limit=100).data) == 1


def test_a_cursor_continues_with_another_view(listings: Listings) -> None:
    page = listings.memories.list(listings.store, page=listings.into_memories, view="full")
    assert [item.content for item in page.data if item.type == "memory"] == [
        "/a/2",
        "/a/3",
        "/b/1",
        "/b/2",
        "/c",
    ]
    versions = listings.versions.list(listings.store, page=listings.into_versions, view="full")
    assert [version.content for version in versions.data] == ["/b/2", "/b/1", "/a/3", "/a/2", "/a/1"]


def test_a_cursor_can_be_used_again(listings: Listings) -> None:
    pages = [listings.memories.list(listings.store, page=listings.into_memories, limit=2) for _ in range(2)]
    assert pages[0].data == pages[1].data
    assert pages[0].next_page == pages[1].next_page


def test_a_cursor_of_another_store_is_refused(listings: Listings) -> None:
    with refused(400):
        listings.memories.list(listings.other, page=listings.into_memories)
    with refused(400):
        listings.versions.list(listings.other, page=listings.into_versions)


def test_a_cursor_of_another_listing_is_refused(listings: Listings) -> None:
    with refused(400):
        listings.memories.list(listings.store, page=listings.into_versions)
    with refused(400):
        listings.memories.list(listings.store, page=listings.into_stores)
    with refused(400):
        listings.versions.list(listings.store, page=listings.into_memories)
    with refused(400):
        listings.versions.list(listings.store, page=listings.into_stores)
    with refused(400):
        listings.stores.list(page=listings.into_memories)
    with refused(400):
        listings.stores.list(page=listings.into_versions)


def test_a_cursor_of_memories_with_other_filters_is_refused(listings: Listings) -> None:
    with refused(400):
        listings.memories.list(listings.store, page=listings.into_memories, path_prefix="/a/")
    with refused(400):
        listings.memories.list(listings.store, page=listings.into_memories, depth=1)

    inside = listings.memories.list(listings.store, path_prefix="/a/", limit=1).next_page
    assert inside is not None
    for other in ("/b/", "/a/x/"):
        with refused(400):
            listings.memories.list(listings.store, page=inside, path_prefix=other)
    with refused(400):
        listings.memories.list(listings.store, page=inside)

    rolled_up = listings.memories.list(listings.store, depth=1, limit=1).next_page
    assert rolled_up is not None
    with refused(400):
        listings.memories.list(listings.store, page=rolled_up, depth=0)


def test_a_cursor_of_versions_with_other_filters_is_refused(listings: Listings) -> None:
    anything = listings.into_versions
    memory = listings.versions.list(listings.store, limit=1).data[0].memory_id
    with refused(400):
        listings.versions.list(listings.store, page=anything, operation="created")
    with refused(400):
        listings.versions.list(listings.store, page=anything, memory_id=memory)
    with refused(400):
        listings.versions.list(listings.store, page=anything, created_at_gte="2020-01-01T00:00:00Z")

    created = listings.versions.list(listings.store, operation="created", limit=1).next_page
    assert created is not None
    with refused(400):
        listings.versions.list(listings.store, page=created, operation="modified")
    with refused(400):
        listings.versions.list(listings.store, page=created)


def test_a_cursor_of_stores_with_other_filters_is_refused(listings: Listings) -> None:
    with refused(400):
        listings.stores.list(page=listings.into_stores, include_archived=True)
    with refused(400):
        listings.stores.list(page=listings.into_stores, created_at_gte="2020-01-01T00:00:00Z")


def test_a_default_written_out_is_the_same_filter(listings: Listings) -> None:
    page = listings.memories.list(listings.store, page=listings.into_memories, depth=0, path_prefix="/")
    assert len(page.data) == 5
    assert len(listings.stores.list(page=listings.into_stores, include_archived=False).data) == 1


def test_a_cursor_shows_nothing_to_another_workspace(listings: Listings, client: anthropic.Anthropic) -> None:
    with pytest.raises((anthropic.BadRequestError, anthropic.NotFoundError)):
        client.beta.memory_stores.memories.list(listings.store, page=listings.into_memories)
    try:
        shown = [store.id for store in client.beta.memory_stores.list(page=listings.into_stores)]
    except anthropic.BadRequestError:
        return
    assert not {listings.store, listings.other} & set(shown)


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_is_refused(listings: Listings, http: httpx2.Client, garbage: str) -> None:
    with refused(400):
        listings.memories.list(listings.store, page=garbage)
    with refused(400):
        listings.versions.list(listings.store, page=garbage)
    assert "page" in check_refusal(http.get("/v1/memory_stores", params={"page": garbage}), 400)["message"]


def test_a_cursor_that_was_tampered_with_is_refused(listings: Listings) -> None:
    cursor = listings.into_memories
    for index in range(len("page_"), len(cursor) - 1, 7):
        changed = "A" if cursor[index] != "A" else "B"
        with refused(400):
            listings.memories.list(listings.store, page=cursor[:index] + changed + cursor[index + 1 :])
    for shorter in (cursor[:-2], cursor[: len(cursor) // 2]):
        with refused(400):
            listings.memories.list(listings.store, page=shorter)
