"""The history of a store: which changes write versions, in which order they are listed, how they are filtered
(parts 3.1 to 3.3).
"""

import itertools
from datetime import UTC, datetime
from typing import Literal

import anthropic
import httpx2
import pytest
from anthropic.resources.beta.memory_stores import Memories, MemoryStores, MemoryVersions
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from tests.contract.conftest import Credential
from tests.contract.routes import Sample
from tests.contract.shapes import check_refusal, refused

NOBODY = "01" + "1" * 22


class History:
    """A store with eight versions: one memory changed and deleted, one renamed, one untouched."""

    def __init__(self, store: Store, memories: Memories, versions: MemoryVersions) -> None:
        self.store_id = store.id
        self.deleted = memories.create(store.id, path="/deleted", content="1").id
        self.renamed = memories.create(store.id, path="/old-name", content="2").id
        memories.update(self.deleted, memory_store_id=store.id, content="3")
        memories.update(self.renamed, memory_store_id=store.id, path="/new-name")
        self.untouched = memories.create(store.id, path="/untouched", content="4").id
        memories.update(self.deleted, memory_store_id=store.id, content="5", path="/deleted-later")
        memories.delete(self.deleted, memory_store_id=store.id)
        memories.update(self.renamed, memory_store_id=store.id, content="6")
        self.newest_first = versions.list(store.id).data


@pytest.fixture
def history(store: Store, memories: Memories, versions: MemoryVersions) -> History:
    return History(store, memories, versions)


def test_every_change_is_one_version_newest_first(history: History, versions: MemoryVersions) -> None:
    full = versions.list(history.store_id, view="full").data
    assert [(version.operation, version.path, version.content) for version in full] == [
        ("modified", "/new-name", "6"),
        ("deleted", "/deleted-later", None),
        ("modified", "/deleted-later", "5"),
        ("created", "/untouched", "4"),
        ("modified", "/new-name", "2"),
        ("modified", "/deleted", "3"),
        ("created", "/old-name", "2"),
        ("created", "/deleted", "1"),
    ]
    times = [version.created_at for version in full]
    assert times == sorted(times, reverse=True)
    assert len({version.id for version in full}) == 8


def test_a_store_without_memories_has_no_versions(store: Store, versions: MemoryVersions) -> None:
    page = versions.list(store.id)
    assert (page.data, page.next_page) == ([], None)


def test_changes_of_the_store_itself_write_no_versions(
    sample: Sample, stores: MemoryStores, versions: MemoryVersions
) -> None:
    before = versions.list(sample.store).data
    stores.update(sample.store, name="renamed", metadata={"k": "v"})
    stores.archive(sample.store)
    assert versions.list(sample.store).data == before


def test_redaction_adds_no_version(sample: Sample, versions: MemoryVersions) -> None:
    before = [version.id for version in versions.list(sample.store)]
    versions.redact(sample.version, memory_store_id=sample.store)
    assert [version.id for version in versions.list(sample.store)] == before


def test_the_head_of_a_memory_is_its_newest_version(history: History, memories: Memories) -> None:
    for memory_id in (history.renamed, history.untouched):
        newest = next(version for version in history.newest_first if version.memory_id == memory_id)
        memory = memories.retrieve(memory_id, memory_store_id=history.store_id)
        assert memory.memory_version_id == newest.id


def test_a_version_stays_readable_after_its_memory_changed_and_was_deleted(
    history: History, versions: MemoryVersions
) -> None:
    contents = [
        versions.retrieve(version.id, memory_store_id=history.store_id).content
        for version in history.newest_first
        if version.memory_id == history.deleted
    ]
    assert contents == [None, "5", "3", "1"]


@pytest.mark.parametrize("limit", range(1, 10))
def test_pages_of_any_size_give_each_version_once(history: History, versions: MemoryVersions, limit: int) -> None:
    page = versions.list(history.store_id, limit=limit)
    pages = [page.data]
    while page.next_page is not None:
        page = versions.list(history.store_id, limit=limit, page=page.next_page)
        pages.append(page.data)
    assert list(itertools.chain(*pages)) == history.newest_first
    assert all(len(data) == limit for data in pages[:-1])
    assert pages[-1]


def test_versions_written_while_paging_do_not_move_the_pages(
    history: History, memories: Memories, versions: MemoryVersions
) -> None:
    first = versions.list(history.store_id, limit=3)
    memories.update(history.untouched, memory_store_id=history.store_id, content="meanwhile")
    assert first.next_page is not None
    rest = versions.list(history.store_id, limit=100, page=first.next_page)
    assert first.data + rest.data == history.newest_first


def test_page_sizes_and_the_cap_of_full_pages(store: Store, memories: Memories, versions: MemoryVersions) -> None:
    memory = memories.create(store.id, path="/a", content="0")
    for number in range(1, 22):
        memories.update(memory.id, memory_store_id=store.id, content=str(number))

    assert len(versions.list(store.id).data) == 20
    assert len(versions.list(store.id, limit=100).data) == 22
    capped = versions.list(store.id, limit=100, view="full")
    assert [version.content for version in capped.data] == [str(number) for number in range(21, 1, -1)]
    assert capped.next_page is not None
    rest = versions.list(store.id, limit=100, view="full", page=capped.next_page)
    assert ([version.content for version in rest.data], rest.next_page) == (["1", "0"], None)


def test_filter_by_memory_works_after_it_was_deleted(history: History, versions: MemoryVersions) -> None:
    for memory_id in (history.deleted, history.renamed, history.untouched):
        found = versions.list(history.store_id, memory_id=memory_id).data
        assert found == [version for version in history.newest_first if version.memory_id == memory_id]
    assert len(versions.list(history.store_id, memory_id=history.deleted).data) == 4


@pytest.mark.parametrize(("operation", "count"), [("created", 3), ("modified", 4), ("deleted", 1)])
def test_filter_by_operation(
    history: History,
    versions: MemoryVersions,
    operation: Literal["created", "modified", "deleted"],
    count: int,
) -> None:
    found = versions.list(history.store_id, operation=operation).data
    assert found == [version for version in history.newest_first if version.operation == operation]
    assert len(found) == count


def test_filter_by_api_key(
    colleague: anthropic.Anthropic, colleague_key: Credential, sample: Sample, versions: MemoryVersions
) -> None:
    colleague.beta.memory_stores.memories.update(sample.memory, memory_store_id=sample.store, content="by a colleague")
    newest, *older = versions.list(sample.store).data

    assert newest.created_by is not None
    assert newest.created_by.to_dict() == {"type": "api_actor", "api_key_id": colleague_key.id}
    assert versions.list(sample.store, api_key_id=colleague_key.id).data == [newest]
    first_author = older[0].created_by
    assert first_author is not None
    assert first_author.type == "api_actor"
    assert versions.list(sample.store, api_key_id=first_author.api_key_id).data == older


def test_filter_by_time_is_inclusive_at_both_ends(history: History, versions: MemoryVersions) -> None:
    for low, high in itertools.product(history.newest_first[::3], repeat=2):
        found = versions.list(history.store_id, created_at_gte=low.created_at, created_at_lte=high.created_at).data
        assert found == [
            version for version in history.newest_first if low.created_at <= version.created_at <= high.created_at
        ]


def test_a_time_as_the_api_wrote_it_finds_its_own_version(sample: Sample, http: httpx2.Client) -> None:
    url = f"/v1/memory_stores/{sample.store}/memory_versions"
    for version in http.get(url).json()["data"]:
        written = version["created_at"]
        found = http.get(url, params={"created_at[gte]": written, "created_at[lte]": written}).json()["data"]
        assert version in found


def test_filters_and_together(history: History, versions: MemoryVersions) -> None:
    found = versions.list(history.store_id, memory_id=history.deleted, operation="modified").data
    assert [version.path for version in found] == ["/deleted-later", "/deleted"]
    none = versions.list(history.store_id, memory_id=history.untouched, operation="deleted")
    assert (none.data, none.next_page) == ([], None)
    future = datetime(2999, 1, 1, tzinfo=UTC)
    assert versions.list(history.store_id, operation="created", created_at_gte=future).data == []


def test_filters_are_paged(history: History, versions: MemoryVersions) -> None:
    found = list(versions.list(history.store_id, operation="modified", memory_id=history.renamed, limit=1))
    assert [version.path for version in found] == ["/new-name", "/new-name"]


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("memory_id", f"mem_{NOBODY}"),
        ("session_id", f"sesn_{NOBODY}"),
        ("api_key_id", f"apikey_{NOBODY}"),
        ("service_account_id", f"svac_{NOBODY}"),
    ],
)
def test_a_filter_on_an_unknown_id_gives_an_empty_page(
    sample: Sample, http: httpx2.Client, parameter: str, value: str
) -> None:
    url = f"/v1/memory_stores/{sample.store}/memory_versions"
    response = http.get(url, params={parameter: value})
    assert response.status_code == 200
    assert response.json() == {"data": [], "next_page": None}


def test_a_filter_on_another_stores_memory_gives_an_empty_page(
    sample: Sample, stores: MemoryStores, versions: MemoryVersions
) -> None:
    other = stores.create(name="other")
    assert versions.list(other.id, memory_id=sample.memory).data == []
    stores.delete(other.id)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("operation", "renamed"),
        ("operation", "redacted"),
        ("operation", ""),
        ("created_at[gte]", "soon"),
        ("created_at[lte]", "2026-02-30T00:00:00Z"),
        ("limit", "0"),
        ("limit", "-1"),
        ("limit", "101"),
        ("limit", "x"),
        ("limit", ""),
    ],
)
def test_a_value_out_of_range_is_refused(store: Store, http: httpx2.Client, parameter: str, value: str) -> None:
    response = http.get(f"/v1/memory_stores/{store.id}/memory_versions", params={parameter: value})
    assert parameter in check_refusal(response, 400)["message"]


def test_an_unknown_version_is_404(sample: Sample, versions: MemoryVersions) -> None:
    with refused(404):
        versions.retrieve(f"memver_{NOBODY}", memory_store_id=sample.store)
    with refused(404):
        versions.redact(f"memver_{NOBODY}", memory_store_id=sample.store)
    with refused(404):
        versions.retrieve(sample.memory, memory_store_id=sample.store)
