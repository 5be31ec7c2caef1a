"""A request that is sent again because its answer was lost does not fail on what it did itself."""

import json

import anthropic
import httpx2
import pytest
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from tests.support.servers import Server

REPEATED = {"x-stainless-retry-count": "1"}


@pytest.fixture
def memories(store: Store) -> str:
    return f"/v1/memory_stores/{store.id}/memories"


def versions(client: anthropic.Anthropic, store: Store) -> list[str | None]:
    """The store's operations, oldest first."""
    found = client.beta.memory_stores.memory_versions.list(store.id).data
    return [version.operation for version in reversed(found)]


def test_a_repeated_create_finds_its_own_memory(
    client: anthropic.Anthropic, http: httpx2.Client, store: Store, memories: str
) -> None:
    body = {"path": "/notes/a.md", "content": "one"}
    first = http.post(memories, json=body, headers={"x-stainless-retry-count": "0"})
    again = http.post(memories, json=body, headers=REPEATED)
    assert first.status_code == again.status_code == 200
    assert again.json() == first.json()
    assert versions(client, store) == ["created"]


@pytest.mark.parametrize("count", ["1" * 5_000, "0" * 5_000 + "1", "9" * 30])
def test_a_count_of_any_length_is_a_count(http: httpx2.Client, memories: str, count: str) -> None:
    body, headers = {"path": "/notes/a.md", "content": "one"}, {"x-stainless-retry-count": count}
    first = http.post(memories, json=body)
    assert http.post(memories, json=body, headers=headers).json() == first.json()
    deleted = [http.delete(f"{memories}/{first.json()['id']}", headers=headers).status_code for _ in range(2)]
    assert deleted == [200, 200]


@pytest.mark.parametrize(
    "headers",
    [{}, *({"x-stainless-retry-count": count} for count in ("0", "0" * 5_000, "often", "-1", "1.0"))],
)
def test_a_first_attempt_meets_a_conflict(http: httpx2.Client, memories: str, headers: dict[str, str]) -> None:
    body = {"path": "/a.md", "content": "one"}
    assert http.post(memories, json=body).status_code == 200
    assert http.post(memories, json=body, headers=headers).status_code == 409


def test_a_repeated_create_meets_a_conflict_with_what_it_did_not_make(
    client: anthropic.Anthropic, http: httpx2.Client, store: Store, memories: str
) -> None:
    made = http.post(memories, json={"path": "/dir/a.md", "content": "one"}).json()
    for body in ({"path": "/dir/a.md", "content": "two"}, {"path": "/dir", "content": "one"}):
        refused = http.post(memories, json=body, headers=REPEATED)
        assert refused.status_code == 409
        assert refused.json()["error"]["conflicting_memory_id"] == made["id"]
    # Changed since, and changed back: what is there is not what a create made.
    update = client.beta.memory_stores.memories.update
    update(made["id"], memory_store_id=store.id, content="between")
    update(made["id"], memory_store_id=store.id, content="one")
    assert http.post(memories, json={"path": "/dir/a.md", "content": "one"}, headers=REPEATED).status_code == 409


def test_a_repeated_create_meets_a_conflict_with_another_authors_memory(
    server: Server, http: httpx2.Client, memories: str
) -> None:
    key = server.cli("keys", "create", "--workspace", "default", "--json")

    with server.http() as other:
        other.headers["x-api-key"] = json.loads(key.stdout)["secret"]
        body = {"path": "/a.md", "content": "one"}
        assert other.post(memories, json=body).status_code == 200
        assert http.post(memories, json=body, headers=REPEATED).status_code == 409
        assert other.post(memories, json=body, headers=REPEATED).status_code == 200


def test_a_repeated_delete_finds_that_it_is_done(
    client: anthropic.Anthropic, http: httpx2.Client, store: Store, memories: str
) -> None:
    made = http.post(memories, json={"path": "/a.md", "content": "one"}).json()
    first = http.delete(f"{memories}/{made['id']}")
    again = http.delete(f"{memories}/{made['id']}", headers=REPEATED)
    assert first.status_code == again.status_code == 200
    assert again.json() == first.json()
    assert http.delete(f"{memories}/{made['id']}").status_code == 404
    assert http.delete(f"{memories}/mem_01{'1' * 22}", headers=REPEATED).status_code == 404
    assert versions(client, store) == ["created", "deleted"]


def test_a_repeated_update_changes_nothing(
    client: anthropic.Anthropic, http: httpx2.Client, store: Store, memories: str
) -> None:
    made = http.post(memories, json={"path": "/a.md", "content": "one"}).json()
    body = {
        "content": "two",
        "path": "/b.md",
        "precondition": {"type": "content_sha256", "content_sha256": made["content_sha256"]},
    }
    first = http.post(f"{memories}/{made['id']}", json=body)
    again = http.post(f"{memories}/{made['id']}", json=body, headers=REPEATED)
    assert first.status_code == again.status_code == 200
    assert again.json()["memory_version_id"] == first.json()["memory_version_id"]
    assert versions(client, store) == ["created", "modified"]
