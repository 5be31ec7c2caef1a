"""Restoring a memory to one of its versions: POST …/memory_versions/{id}/restore."""

import httpx2
import pytest
from anthropic import Anthropic
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from app.contract import ids
from tests.contract.conftest import SessionMaker, bare_http
from tests.contract.history_calls import Told, ok
from tests.contract.shapes import MEMORY_KEYS, PATH_CONFLICT, PRECONDITION_FAILED, check_refusal, sha256
from tests.support.backends import Backend
from tests.support.servers import serve


@pytest.fixture
def told(http: httpx2.Client, client: Anthropic, store: Store) -> Told:
    return Told(http, client, store.id)


def test_a_live_memory_gets_the_content_and_path_of_the_version_as_one_modified_version(told: Told) -> None:
    first = told.create("/a.md", "one")
    told.update(first, content="two", path="/b.md")
    restored = ok(told.restore(first["memory_version_id"]))
    assert set(restored) == MEMORY_KEYS
    assert (restored["id"], restored["path"], restored["content"]) == (first["id"], "/a.md", "one")
    assert restored["content_sha256"] == sha256("one")
    assert told.tree() == {"/a.md": (first["id"], "one")}
    versions = told.versions(first)
    assert [version["operation"] for version in versions] == ["created", "modified", "modified"]
    assert versions[-1]["id"] == restored["memory_version_id"]
    assert versions[-1]["created_by"]["type"] == "api_actor"
    assert told.last_seq == 3


def test_a_deleted_memory_comes_back_with_its_id_by_a_created_version(told: Told) -> None:
    memory = told.create("/a.md", "one")
    two = told.update(memory, content="two")
    told.delete(memory)
    restored = ok(told.restore(two["memory_version_id"]))
    assert (restored["id"], restored["path"], restored["content"]) == (memory["id"], "/a.md", "two")
    assert told.tree() == {"/a.md": (memory["id"], "two")}
    assert [version["operation"] for version in told.versions(memory)] == ["created", "modified", "deleted", "created"]
    # It can be changed, deleted and brought back again like any other.
    told.update(memory, content="three")
    told.delete(memory)
    ok(told.restore(memory["memory_version_id"]))
    assert told.tree() == {"/a.md": (memory["id"], "one")}
    assert told.last_seq == 7


def test_what_is_so_already_makes_no_version(told: Told) -> None:
    memory = told.create("/a.md", "one")
    told.update(memory, content="two")
    again = told.update(memory, content="one")
    restored = ok(told.restore(memory["memory_version_id"], precondition=_precondition("no matter")))
    assert restored["memory_version_id"] == again["memory_version_id"]
    assert told.last_seq == 3


def test_another_path_may_be_given(told: Told) -> None:
    memory = told.create("/a.md", "one")
    told.delete(memory)
    told.create("/a.md", "in the way")
    error = check_refusal(told.restore(memory["memory_version_id"]), 409, PATH_CONFLICT)
    assert error["conflicting_path"] == "/a.md"
    restored = ok(told.restore(memory["memory_version_id"], path="/back/a.md"))
    assert (restored["id"], restored["path"]) == (memory["id"], "/back/a.md")
    check_refusal(told.restore(memory["memory_version_id"], path="no slash"), 400)


@pytest.mark.parametrize("other", ["/a/b", "/a", "/a/b/c"])
def test_a_memory_at_above_or_below_the_path_is_a_conflict(told: Told, other: str) -> None:
    live, gone = told.create("/a/b", "live"), told.create("/x", "gone")
    told.update(live, path="/elsewhere")
    told.delete(gone)
    in_the_way = told.create(other, "in the way")
    before = told.tree()
    for version_id, path in ((live["memory_version_id"], None), (gone["memory_version_id"], "/a/b")):
        error = check_refusal(told.restore(version_id, path=path), 409, PATH_CONFLICT)
        assert (error["conflicting_memory_id"], error["conflicting_path"]) == (in_the_way["id"], other)
    assert told.tree() == before


def _precondition(content: str) -> dict[str, str]:
    return {"type": "content_sha256", "content_sha256": sha256(content)}


def test_the_precondition_is_of_the_current_content(told: Told) -> None:
    memory = told.create("/a.md", "one")
    told.update(memory, content="two")
    first = memory["memory_version_id"]
    error = check_refusal(told.restore(first, precondition=_precondition("one")), 409, PRECONDITION_FAILED)
    assert sha256("two") in error["message"]
    assert told.tree() == {"/a.md": (memory["id"], "two")}
    assert ok(told.restore(first, precondition=_precondition("two")))["content"] == "one"
    told.delete(memory)
    check_refusal(told.restore(first, precondition=_precondition("one")), 409, PRECONDITION_FAILED)
    assert told.tree() == {}


def test_redacted_versions_and_deletions_are_refused_in_words(told: Told) -> None:
    memory = told.create("/a.md", "one")
    told.update(memory, content="two")
    told.delete(memory)
    first, second, deletion = told.versions(memory)
    told.redact(first["id"])
    assert "is redacted" in check_refusal(told.restore(first["id"]), 400)["message"]
    assert "is a deletion" in check_refusal(told.restore(deletion["id"]), 400)["message"]
    assert ok(told.restore(second["id"]))["content"] == "two"


def test_unknown_versions_and_stores_are_not_found(told: Told, http: httpx2.Client) -> None:
    memory = told.create("/a.md", "one")
    check_refusal(told.restore(ids.new(ids.VERSION)), 404)
    other = f"/v1/memory_stores/{ids.new(ids.STORE)}/memory_versions/{memory['memory_version_id']}/restore"
    check_refusal(http.post(other), 404)
    elsewhere = told.client.beta.memory_stores.create(name="elsewhere")
    try:
        check_refusal(Told(http, told.client, elsewhere.id).restore(memory["memory_version_id"]), 404)
    finally:
        told.client.beta.memory_stores.delete(elsewhere.id)


def test_an_archived_store_is_not_restored(told: Told) -> None:
    memory = told.create("/a.md", "one")
    told.update(memory, content="two")
    ok(told.http.post(f"{told.url}/archive"))
    assert "is archived" in check_refusal(told.restore(memory["memory_version_id"]), 400)["message"]


def test_the_body_may_be_left_out_and_knows_no_other_fields(told: Told) -> None:
    memory = told.create("/a.md", "one")
    told.update(memory, content="two")
    url = f"{told.url}/memory_versions/{memory['memory_version_id']}/restore"
    check_refusal(told.http.post(url, json={"content": "x"}), 400)
    body = ok(told.http.post(url))
    assert body["content"] is None
    assert told.tree() == {"/a.md": (memory["id"], "one")}


def test_a_follower_of_the_changes_is_told_that_it_is_back(told: Told) -> None:
    memory = told.create("/a.md", "one")
    told.delete(memory)
    restored = ok(told.restore(memory["memory_version_id"]))
    (change,) = ok(told.http.get(f"{told.url}/changes", params={"after": 2}))["data"]
    assert (change["operation"], change["memory_id"], change["path"]) == ("created", memory["id"], "/a.md")
    assert change["memory_version_id"] == restored["memory_version_id"]
    assert change["content_sha256"] == sha256("one")


def test_a_sessions_agent_may_restore_where_it_may_write(told: Told, open_session: SessionMaker) -> None:
    memory = told.create("/a.md", "one")
    told.update(memory, content="two")
    for access, status in (("read_only", 403), ("read_write", 200)):
        session = open_session({"type": "memory_store", "memory_store_id": told.store_id, "access": access})
        token = open_session.token(session.id)["token"]
        with bare_http(open_session.server, authorization=f"Bearer {token}") as agent:
            answer = agent.post(f"{told.url}/memory_versions/{memory['memory_version_id']}/restore")
            assert answer.status_code == status, answer.text
            check_refusal(agent.post(f"{told.url}/rollback", json={"seq": 1}), 403)
    assert told.versions(memory)[-1]["created_by"] == {"type": "session_actor", "session_id": session.id}


def test_what_comes_back_counts_against_the_limits(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> None:
    environment = backend.environment(tmp_path_factory.mktemp("quota"))
    limits = {"MEMSTORE_MAX_MEMORIES_PER_STORE": "2", "MEMSTORE_MAX_STORE_BYTES": "20"}
    with serve(environment, settings=limits) as server, server.http() as http, server.client(max_retries=0) as client:
        told = Told(http, client, client.beta.memory_stores.create(name="small").id)
        big = told.create("/big", "b" * 15)
        told.update(big, content="small")
        other = told.create("/other", "o" * 10)
        error = check_refusal(told.restore(big["memory_version_id"]), 400)
        assert "at most 20 are allowed" in error["message"]
        told.delete(other)
        told.create("/third", "t")
        told.delete(big)
        told.create("/fourth", "f")
        error = check_refusal(told.restore(other["memory_version_id"]), 400)
        assert "at most 2 are allowed" in error["message"]
        assert set(told.tree()) == {"/third", "/fourth"}
