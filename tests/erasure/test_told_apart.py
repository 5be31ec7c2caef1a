"""What was erased is told apart from what was deleted, to callers of its own workspace alone."""

from typing import Any

import anthropic
import httpx2

from tests.contract.conftest import bare_http, make_key
from tests.erasure.planting import session_with
from tests.support.servers import Server


def refusal(http: httpx2.Client, path: str, method: str = "GET", **options: Any) -> dict[str, Any]:
    """The `error` object of a 404."""
    response = http.request(method, path, **options)
    assert response.status_code == 404, response.text
    error: dict[str, Any] = response.json()["error"]
    return error


def flags(http: httpx2.Client, store_id: str) -> list[tuple[str, bool | None]]:
    """Each change of a store: the memory, and what it says of an erasure."""
    changes = http.get(f"/v1/memory_stores/{store_id}/changes").json()["data"]
    return [(change["memory_id"], change.get("erased")) for change in changes if change["operation"] == "deleted"]


def test_an_erased_memory_says_so_and_a_deleted_one_does_not(own: Server, sdk: anthropic.Anthropic) -> None:
    store = sdk.beta.memory_stores.create(name="Notes")
    memories = sdk.beta.memory_stores.memories
    anna = memories.create(store.id, path="/anna.md", content="Anna")
    gone = memories.create(store.id, path="/gone.md", content="Anna, too")
    bob = memories.create(store.id, path="/bob.md", content="Bob")
    for deleted in (gone, bob):
        memories.delete(deleted.id, memory_store_id=store.id)
    # A deletion that only lost its path is no erasure.
    tombstone = sdk.beta.memory_stores.memory_versions.list(store.id, memory_id=bob.id).data[0]
    sdk.beta.memory_stores.memory_versions.redact(tombstone.id, memory_store_id=store.id)
    own.cli("forget", "--contains", "Anna", "--yes")
    base = f"/v1/memory_stores/{store.id}/memories"
    with own.http() as http:
        assert refusal(http, f"{base}/{anna.id}")["erased"] is True
        assert refusal(http, f"{base}/{gone.id}")["erased"] is True, "it was deleted before"
        assert refusal(http, f"{base}/{anna.id}", "POST", json={"content": "again"})["erased"] is True
        assert refusal(http, f"{base}/{anna.id}", "DELETE")["erased"] is True
        assert "erased" not in refusal(http, f"{base}/{bob.id}")
        assert "erased" not in refusal(http, f"{base}/{bob.id[:-1]}x")
        assert dict(flags(http, store.id)) == {anna.id: True, gone.id: True, bob.id: None}
        with http.stream(
            "GET", f"/v1/memory_stores/{store.id}/changes", headers={"accept": "text/event-stream"}
        ) as stream:
            data: list[str] = []
            for line in stream.iter_lines():
                data += [line] if line.startswith("data:") else []
                if len(data) == len(http.get(f"/v1/memory_stores/{store.id}/changes").json()["data"]):
                    break
        assert [('"erased":true' in line) for line in data if '"operation":"deleted"' in line].count(True) == 2
    token = sdk.post(
        f"/v1/sessions/{session_with(sdk, {'memory_store_id': store.id})}/tokens", body={}, cast_to=dict[str, Any]
    )
    with bare_http(own, **{"x-api-key": token["token"]}) as http:
        assert refusal(http, f"{base}/{anna.id}")["erased"] is True, "a session of the store"


def test_a_store_that_was_erased_whole_says_so_and_a_deleted_one_does_not(
    own: Server, sdk: anthropic.Anthropic
) -> None:
    stores = sdk.beta.memory_stores
    erased, before, deleted = (stores.create(name=name) for name in ("Anna", "Anna before", "Bob"))
    memory = stores.memories.create(erased.id, path="/a.md", content="Anna")
    for store in (erased, before):
        session_with(sdk, {"memory_store_id": store.id})
    for store in (before, deleted):
        stores.delete(store.id)
    own.cli("forget", "--store", erased.id, "--store", before.id, "--yes")
    with own.http() as http:
        for path in ("", "/memories", f"/memories/{memory.id}", "/changes", "/snapshot", "/memory_versions"):
            assert refusal(http, f"/v1/memory_stores/{erased.id}{path}")["erased"] is True, path
        assert refusal(http, f"/v1/memory_stores/{before.id}")["erased"] is True, "it was deleted before"
        assert "erased" not in refusal(http, f"/v1/memory_stores/{deleted.id}")


def test_another_workspace_or_session_learns_nothing_of_an_erasure(own: Server, sdk: anthropic.Anthropic) -> None:
    stores = sdk.beta.memory_stores
    store, whole, other = (stores.create(name=name) for name in ("Notes", "Whole", "Other"))
    memory = stores.memories.create(store.id, path="/anna.md", content="Anna")
    token = sdk.post(
        f"/v1/sessions/{session_with(sdk, {'memory_store_id': other.id})}/tokens", body={}, cast_to=dict[str, Any]
    )
    own.cli("forget", "--contains", "Anna", "--yes")
    own.cli("forget", "--store", whole.id, "--yes")
    stranger = make_key(own, "elsewhere").secret
    paths = [f"/v1/memory_stores/{store.id}/memories/{memory.id}", f"/v1/memory_stores/{whole.id}"]
    for secret in (stranger, token["token"]):
        with bare_http(own, **{"x-api-key": secret}) as http:
            for path in paths:
                assert "erased" not in http.get(path).json()["error"], (secret[:8], path)
    with bare_http(own, **{"x-api-key": stranger}) as http:
        mine = http.post("/v1/memory_stores", json={"name": "Mine"}).json()["id"]
        assert "erased" not in refusal(http, f"/v1/memory_stores/{mine}/memories/{memory.id}")
