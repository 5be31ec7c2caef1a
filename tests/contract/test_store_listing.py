"""Listing stores: newest first, archived ones on request, by time of creation, page by page (part 1.4)."""

from collections.abc import Iterator
from datetime import timedelta

import anthropic
import httpx2
import pytest
from anthropic.resources.beta.memory_stores import MemoryStores
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from tests.contract.conftest import Credential, bare_http, sign_in
from tests.contract.shapes import check_refusal, refused
from tests.support.servers import Server

LIVE = 5


class Shelf:
    """A workspace of its own, with five live stores and one archived store that is neither first nor last."""

    def __init__(self, client: anthropic.Anthropic, http: httpx2.Client) -> None:
        self.stores = client.beta.memory_stores
        self.http = http
        made = [self.stores.create(name=f"store {number}") for number in range(LIVE + 1)]
        self.archived = self.stores.archive(made[2].id)
        self.newest_first: list[Store] = [
            self.archived if store.id == self.archived.id else store for store in reversed(made)
        ]
        self.live_newest_first = [store for store in self.newest_first if store.archived_at is None]


@pytest.fixture(scope="module")
def shelf(server: Server, quiet_key: Credential) -> Iterator[Shelf]:
    secret = quiet_key.secret
    with sign_in(server, secret) as client, bare_http(server, x_api_key=secret) as http:
        shelf = Shelf(client, http)
        yield shelf
        for store in shelf.newest_first:
            shelf.stores.delete(store.id)


def test_stores_are_listed_newest_first(shelf: Shelf) -> None:
    assert shelf.stores.list().data == shelf.live_newest_first


def test_archived_stores_are_listed_on_request_only(shelf: Shelf) -> None:
    assert shelf.stores.list(include_archived=False).data == shelf.live_newest_first
    assert shelf.stores.list(include_archived=True).data == shelf.newest_first


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6, 100])
@pytest.mark.parametrize("include_archived", [False, True])
def test_pages_of_any_size_give_each_store_once(shelf: Shelf, limit: int, include_archived: bool) -> None:
    expected = shelf.newest_first if include_archived else shelf.live_newest_first
    page = shelf.stores.list(limit=limit, include_archived=include_archived)
    seen = [page.data]
    while page.next_page is not None:
        page = shelf.stores.list(limit=limit, include_archived=include_archived, page=page.next_page)
        seen.append(page.data)

    assert [store for data in seen for store in data] == expected
    assert all(len(data) == limit for data in seen[:-1])
    assert seen[-1], "the last page is not empty"


def test_a_page_holds_twenty_stores_by_default(stores: MemoryStores) -> None:
    made = [stores.create(name="x") for _ in range(21)]
    page = stores.list(created_at_gte=made[0].created_at)
    assert len(page.data) == 20
    assert page.next_page is not None
    assert list(stores.list(created_at_gte=made[0].created_at)) == made[::-1]
    for store in made:
        stores.delete(store.id)


def test_the_range_of_creation_times_is_inclusive_at_both_ends(shelf: Shelf) -> None:
    everything = shelf.newest_first
    for low in everything:
        for high in everything:
            found = shelf.stores.list(
                created_at_gte=low.created_at, created_at_lte=high.created_at, include_archived=True
            ).data
            assert found == [s for s in everything if low.created_at <= s.created_at <= high.created_at]


def test_creation_times_may_be_given_in_any_zone_and_precision(shelf: Shelf) -> None:
    oldest = shelf.live_newest_first[-1]
    shifted = "2000-01-01T02:00:00+02:00"
    assert shelf.stores.list(created_at_gte=shifted).data == shelf.live_newest_first
    assert shelf.stores.list(created_at_lte=shifted).data == []
    raw = shelf.http.get(f"/v1/memory_stores/{oldest.id}").json()["created_at"]
    assert shelf.stores.list(created_at_lte=raw).data[-1] == oldest
    a_day_later = oldest.created_at + timedelta(days=1)
    assert shelf.stores.list(created_at_gte=a_day_later).data == []
    assert shelf.stores.list(created_at_lte="9998-12-31T00:00:00Z").data == shelf.live_newest_first


def test_creation_times_go_into_the_cursor(shelf: Shelf) -> None:
    middle = shelf.live_newest_first[2].created_at
    page = shelf.stores.list(created_at_lte=middle, limit=1)
    assert page.next_page is not None
    rest = shelf.stores.list(created_at_lte=middle, limit=100, page=page.next_page)
    assert page.data + rest.data == [s for s in shelf.live_newest_first if s.created_at <= middle]
    with refused(400):
        shelf.stores.list(page=page.next_page)


@pytest.mark.parametrize("name", ["created_at[gte]", "created_at%5Bgte%5D"], ids=["plain", "encoded"])
def test_the_brackets_of_a_range_may_be_encoded(shelf: Shelf, name: str) -> None:
    response = shelf.http.get(f"/v1/memory_stores?{name}=2999-01-01T00:00:00Z")
    assert response.status_code == 200
    assert response.json() == {"data": [], "next_page": None}


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("limit", "0"),
        ("limit", "-1"),
        ("limit", "101"),
        ("limit", "x"),
        ("limit", "1.5"),
        ("limit", ""),
        ("limit", "9" * 5000),
        ("include_archived", "maybe"),
        ("created_at[gte]", "yesterday"),
        ("created_at[lte]", "2026-13-01T00:00:00Z"),
        ("created_at[gte]", ""),
    ],
)
def test_a_value_out_of_range_is_refused(shelf: Shelf, parameter: str, value: str) -> None:
    error = check_refusal(shelf.http.get("/v1/memory_stores", params={parameter: value}), 400)
    assert parameter in error["message"]


@pytest.mark.parametrize("parameter", ["created_at", "created_at[gt]", "created_at[]", "name", "metadata[k]"])
def test_there_are_no_other_filters(shelf: Shelf, parameter: str) -> None:
    error = check_refusal(shelf.http.get("/v1/memory_stores", params={parameter: "x"}), 400)
    assert error["message"] == f"unexpected query parameter: {parameter}"


def test_paging_survives_the_deletion_of_the_store_the_cursor_ends_on(stores: MemoryStores) -> None:
    made = [stores.create(name="x") for _ in range(4)]
    since = made[0].created_at
    first = stores.list(limit=2, created_at_gte=since)
    assert first.data == [made[3], made[2]]
    assert first.next_page is not None
    stores.delete(made[2].id)
    rest = stores.list(page=first.next_page, created_at_gte=since)
    assert rest.data == [made[1], made[0]]
    for store in (made[0], made[1], made[3]):
        stores.delete(store.id)
