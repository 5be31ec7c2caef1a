"""Legal holds: nothing of a held store can be lost, and everything else goes on."""

import json
from collections.abc import Iterator

import anthropic
import httpx2
import pytest
from anthropic.resources.beta.memory_stores import Memories, MemoryStores, MemoryVersions
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from tests.contract.conftest import SessionMaker
from tests.contract.routes import Sample
from tests.contract.shapes import INVALID_REQUEST, is_timestamp
from tests.support.servers import Server

HOLD_KEYS = {"type", "memory_store_id", "held_at", "reason"}


def hold_url(store_id: str) -> str:
    return f"/v1/memory_stores/{store_id}/hold"


@pytest.fixture
def held(http: httpx2.Client, sample: Sample) -> Iterator[Sample]:
    assert http.post(hold_url(sample.store), json={"reason": "Case 17"}).status_code == 200
    yield sample
    http.delete(hold_url(sample.store))


def check_held(response: httpx2.Response, store_id: str) -> None:
    """The whole refusal: who reads it learns which store, since when, and what kind of refusal it is."""
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert set(error) == {"type", "message", "details"}
    assert error["type"] == INVALID_REQUEST
    assert error["details"] == {"error_code": "legal_hold"}
    assert error["message"].startswith(f"memory store {store_id!r} is under legal hold since 20")
    assert "Case 17" not in error["message"]


def test_a_hold_is_placed_shown_and_released(http: httpx2.Client, store: Store) -> None:
    url = hold_url(store.id)
    assert http.get(url).status_code == 404
    assert http.delete(url).status_code == 404

    placed = http.post(url, json={"reason": "Case 17"})
    assert placed.status_code == 200
    hold = placed.json()
    assert set(hold) == HOLD_KEYS
    assert hold["type"] == "memory_store_hold"
    assert hold["memory_store_id"] == store.id
    assert hold["reason"] == "Case 17"
    assert is_timestamp(hold["held_at"])
    assert http.get(url).json() == hold

    assert http.delete(url).json() == {"type": "memory_store_hold_released", "memory_store_id": store.id}
    assert http.get(url).status_code == 404


@pytest.mark.parametrize("body", [None, {}, {"reason": None}], ids=["none", "empty", "null"])
def test_a_reason_is_optional(http: httpx2.Client, store: Store, body: dict[str, None] | None) -> None:
    assert http.post(hold_url(store.id), json=body).json()["reason"] is None
    http.delete(hold_url(store.id))


def test_holding_again_keeps_the_time_and_the_reason_unless_there_is_a_new_one(
    http: httpx2.Client, store: Store
) -> None:
    url = hold_url(store.id)
    first = http.post(url, json={"reason": "Case 17"}).json()
    assert http.post(url, json={}).json() == first
    assert http.post(url, json={"reason": "Case 18"}).json() == first | {"reason": "Case 18"}
    http.delete(url)


@pytest.mark.parametrize(
    "body",
    [{"reason": "x" * 1025}, {"reason": "a\0b"}, {"reason": 5}, {"why": "x"}],
    ids=["too-long", "null-character", "number", "unknown-field"],
)
def test_a_bad_reason_is_refused(http: httpx2.Client, store: Store, body: dict[str, object]) -> None:
    assert http.post(hold_url(store.id), json=body).status_code == 400
    assert http.get(hold_url(store.id)).status_code == 404


def test_a_held_store_can_not_be_deleted(http: httpx2.Client, held: Sample, memories: Memories) -> None:
    check_held(http.delete(f"/v1/memory_stores/{held.store}"), held.store)
    assert memories.retrieve(held.memory, memory_store_id=held.store).content == "second"


@pytest.mark.parametrize("precondition", ["", f"?expected_content_sha256={'0' * 64}"], ids=["plain", "expected"])
def test_no_memory_of_a_held_store_can_be_deleted(
    http: httpx2.Client, held: Sample, memories: Memories, versions: MemoryVersions, precondition: str
) -> None:
    before = versions.list(held.store).data
    check_held(http.delete(f"/v1/memory_stores/{held.store}/memories/{held.memory}{precondition}"), held.store)
    assert memories.retrieve(held.memory, memory_store_id=held.store).content == "second"
    assert versions.list(held.store).data == before


def test_an_archived_held_store_refuses_deletions_too(http: httpx2.Client, held: Sample, stores: MemoryStores) -> None:
    stores.archive(held.store)
    check_held(http.delete(f"/v1/memory_stores/{held.store}/memories/{held.memory}"), held.store)
    check_held(http.delete(f"/v1/memory_stores/{held.store}"), held.store)


def test_no_version_of_a_held_store_can_be_redacted(
    http: httpx2.Client, held: Sample, versions: MemoryVersions
) -> None:
    check_held(http.post(f"/v1/memory_stores/{held.store}/memory_versions/{held.version}/redact"), held.store)
    assert versions.retrieve(held.version, memory_store_id=held.store).content == "first"


def test_what_was_redacted_before_the_hold_still_answers(
    http: httpx2.Client, sample: Sample, versions: MemoryVersions
) -> None:
    first = versions.redact(sample.version, memory_store_id=sample.store)
    http.post(hold_url(sample.store))
    assert versions.redact(sample.version, memory_store_id=sample.store) == first
    http.delete(hold_url(sample.store))


def test_a_held_store_is_written_moved_and_archived_as_ever(
    held: Sample, http: httpx2.Client, memories: Memories, versions: MemoryVersions, stores: MemoryStores
) -> None:
    memories.create(held.store, path="/new.md", content="new")
    memories.update(held.memory, memory_store_id=held.store, content="third")
    moved = http.post(f"/v1/memory_stores/{held.store}/moves", json={"from": "/notes/", "to": "/kept/"})
    assert moved.status_code == 200
    stores.update(held.store, name="renamed")
    stores.archive(held.store)
    texts = {version.content for version in versions.list(held.store, view="full").data}
    assert texts == {"first", "second", "third", "new"}


def test_a_released_store_can_be_emptied_and_deleted(
    http: httpx2.Client, held: Sample, memories: Memories, versions: MemoryVersions, stores: MemoryStores
) -> None:
    http.delete(hold_url(held.store))
    memories.delete(held.memory, memory_store_id=held.store)
    versions.redact(held.version, memory_store_id=held.store)
    stores.delete(held.store)


def test_a_hold_of_one_store_is_no_other_stores(
    held: Sample, client: anthropic.Anthropic, memories: Memories, stores: MemoryStores
) -> None:
    other = stores.create(name="free")
    memory = memories.create(other.id, path="/a", content="x")
    memories.delete(memory.id, memory_store_id=other.id)
    stores.delete(other.id)


def test_the_vendors_shape_of_a_store_does_not_tell_of_a_hold(held: Sample, http: httpx2.Client, store: Store) -> None:
    shown = http.get(f"/v1/memory_stores/{held.store}").json()
    assert "held_at" not in shown
    assert set(shown) == set(store.to_dict())


def test_another_workspace_sees_no_hold(held: Sample, guest: anthropic.Anthropic, server: Server) -> None:
    url = f"{server.base_url}{hold_url(held.store)}"
    for method in ("GET", "POST", "DELETE"):
        response = httpx2.request(method, url, headers={"x-api-key": guest.api_key or ""}, trust_env=False)
        assert response.status_code == 404


def test_a_sessions_token_can_not_release_or_read_a_hold(
    held: Sample, open_session: SessionMaker, server: Server
) -> None:
    token = open_session.token(open_session(held.store).id)["token"]
    url = f"{server.base_url}{hold_url(held.store)}"
    for method in ("GET", "POST", "DELETE"):
        response = httpx2.request(method, url, headers={"authorization": f"Bearer {token}"}, trust_env=False)
        assert response.status_code == 403


def test_the_command_holds_and_releases(server: Server, http: httpx2.Client, store: Store) -> None:
    said = server.cli("hold", store.id, "--reason", "Case 17").stdout
    hold = http.get(hold_url(store.id)).json()
    assert hold["reason"] == "Case 17"
    assert said == f"{store.id} is under legal hold since {hold['held_at']}\n"
    assert json.loads(server.cli("hold", store.id, "--json").stdout) == hold

    assert json.loads(server.cli("hold", store.id, "--release", "--json").stdout) == {
        "type": "memory_store_hold_released",
        "memory_store_id": store.id,
    }
    again = server.cli("hold", store.id, "--release", check=False)
    assert again.returncode == 2
    assert again.stderr.endswith(f"\nmemstore: memory store {store.id!r} is under no legal hold\n")


def test_the_command_knows_no_store_that_is_not_there(server: Server) -> None:
    done = server.cli("hold", "memstore_nowhere", check=False)
    assert done.returncode == 2
    assert "\nmemstore: memory store 'memstore_nowhere' was not found" in done.stderr
