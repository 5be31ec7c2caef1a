"""Workspaces are walls: another workspace's IDs do not exist (part 1.1, part 9)."""

from collections.abc import Iterator

import anthropic
import httpx2
import pytest

from tests.contract.conftest import Credential, bare_http
from tests.contract.routes import ROUTES_WITH_ID, Route, Sample, name_of
from tests.contract.shapes import check_refusal, refused
from tests.support.servers import Server

_NOBODY = "01" + "1" * 22
UNKNOWN = Sample(f"memstore_{_NOBODY}", f"mem_{_NOBODY}", f"memver_{_NOBODY}")


def _without_ids(message: str, sample: Sample) -> str:
    for known in (sample.store, sample.memory, sample.version):
        message = message.replace(known, "ID")
    return message


@pytest.fixture(scope="module")
def guest_http(server: Server, guest_key: Credential) -> Iterator[httpx2.Client]:
    with bare_http(server, x_api_key=guest_key.secret) as http:
        yield http


@pytest.mark.parametrize("route", ROUTES_WITH_ID, ids=name_of)
def test_another_workspaces_ids_are_404_and_nothing_changes(
    guest_http: httpx2.Client,
    client: anthropic.Anthropic,
    sample: Sample,
    route: Route,
) -> None:
    stores = client.beta.memory_stores
    before = (
        stores.retrieve(sample.store),
        stores.memories.list(sample.store, view="full").data,
        stores.memory_versions.list(sample.store, view="full").data,
    )
    foreign = check_refusal(route.call(guest_http, sample), 404)
    unknown = check_refusal(route.call(guest_http, UNKNOWN), 404)

    assert _without_ids(foreign["message"], sample) == _without_ids(unknown["message"], UNKNOWN)
    after = (
        stores.retrieve(sample.store),
        stores.memories.list(sample.store, view="full").data,
        stores.memory_versions.list(sample.store, view="full").data,
    )
    assert after == before


def test_a_listing_shows_the_keys_own_workspace_only(
    client: anthropic.Anthropic, guest: anthropic.Anthropic, sample: Sample
) -> None:
    theirs = guest.beta.memory_stores.create(name="theirs")
    assert theirs.id not in [store.id for store in client.beta.memory_stores.list(limit=100)]
    assert sample.store not in [store.id for store in guest.beta.memory_stores.list(limit=100)]
    guest.beta.memory_stores.delete(theirs.id)


@pytest.mark.parametrize("route", ROUTES_WITH_ID, ids=name_of)
def test_unknown_ids_are_404(http: httpx2.Client, route: Route) -> None:
    check_refusal(route.call(http, UNKNOWN), 404)


@pytest.mark.parametrize(
    "malformed",
    ["x", "memstore_", "memstore_'", f"mem_{_NOBODY}", "%00", "%FF", "%20", "é", "m" * 3000],
    ids=["letter", "no-number", "quote", "other-tag", "nul", "not-utf-8", "space", "accent", "very-long"],
)
def test_a_malformed_id_is_404(http: httpx2.Client, sample: Sample, malformed: str) -> None:
    store = f"/v1/memory_stores/{sample.store}"
    check_refusal(http.get(f"/v1/memory_stores/{malformed}"), 404)
    check_refusal(http.get(f"{store}/memories/{malformed}"), 404)
    check_refusal(http.get(f"{store}/memory_versions/{malformed}"), 404)
    check_refusal(http.delete(f"{store}/memories/{malformed}"), 404)


def test_a_memory_or_version_under_another_store_is_404(client: anthropic.Anthropic, sample: Sample) -> None:
    stores = client.beta.memory_stores
    other = stores.create(name="other")
    with refused(404):
        stores.memories.retrieve(sample.memory, memory_store_id=other.id)
    with refused(404):
        stores.memories.update(sample.memory, memory_store_id=other.id, content="stolen")
    with refused(404):
        stores.memories.delete(sample.memory, memory_store_id=other.id)
    with refused(404):
        stores.memory_versions.retrieve(sample.version, memory_store_id=other.id)
    with refused(404):
        stores.memory_versions.redact(sample.version, memory_store_id=other.id)
    assert stores.memory_versions.list(other.id, memory_id=sample.memory).data == []
    assert stores.memories.retrieve(sample.memory, memory_store_id=sample.store).content == "second"
    stores.delete(other.id)


@pytest.mark.parametrize("route", ROUTES_WITH_ID, ids=name_of)
def test_after_its_store_is_deleted_everything_in_it_is_404(
    http: httpx2.Client, client: anthropic.Anthropic, route: Route
) -> None:
    stores = client.beta.memory_stores
    store = stores.create(name="short-lived")
    memory = stores.memories.create(store.id, path="/a", content="x")
    stores.delete(store.id)
    check_refusal(route.call(http, Sample(store.id, memory.id, memory.memory_version_id)), 404)
