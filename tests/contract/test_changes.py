"""The change feed: pages, streams, and what they say when history is not whole any more."""

import threading
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic.resources.beta.memory_stores import Memories, MemoryVersions
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from tests.contract.conftest import SessionMaker, bare_http, make_key
from tests.contract.routes import Sample
from tests.contract.shapes import check_refusal
from tests.storage.outside import Rows
from tests.support.backends import Backend
from tests.support.events import EVENT_STREAM, Event, events
from tests.support.servers import Server, serve
from tests.support.waiting import until

CHANGE_KEYS = {
    "type",
    "seq",
    "operation",
    "memory_store_id",
    "memory_id",
    "memory_version_id",
    "path",
    "content_sha256",
    "content_size_bytes",
    "created_at",
    "created_by",
    "redacted_at",
}
LIVE_STREAMS = 'memstore_http_streams{route="/v1/memory_stores/{memory_store_id}/changes"}'


@pytest.fixture
def rows(server: Server) -> Rows:
    """The server's database, to let versions expire."""
    return Rows(server.environment)


def page(http: httpx2.Client, store_id: str, **query: int) -> dict[str, Any]:
    """A page, checked as far as every page can be."""
    response = http.get(f"/v1/memory_stores/{store_id}/changes", params=query)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    assert set(body) == {"data", "last_seq", "next_after", "has_more", "truncated"}
    assert all(set(change) == CHANGE_KEYS and change["type"] == "memory_change" for change in body["data"])
    numbers = [change["seq"] for change in body["data"]]
    after = query.get("after", 0)
    assert numbers == sorted(set(numbers))
    assert body["truncated"] == (numbers != list(range(after + 1, body["next_after"] + 1)))
    assert body["has_more"] == (body["next_after"] < body["last_seq"])
    return body


def numbers_of(body: dict[str, Any]) -> list[int]:
    return [change["seq"] for change in body["data"]]


def fill(memories: Memories, store: Store, number: int, path: str = "/memory.md") -> str:
    """A memory of so many versions."""
    memory = memories.create(store.id, path=path, content="1")
    for count in range(2, number + 1):
        memories.update(memory.id, memory_store_id=store.id, content=str(count))
    return memory.id


def expire(rows: Rows, store: Store, *numbers: int) -> None:
    """Remove versions, as retention does."""
    listed = ", ".join(map(str, numbers))
    rows.execute(f"DELETE FROM memory_versions WHERE store_id = '{store.id}' AND seq IN ({listed})")


# Pages


def test_a_store_without_changes_has_an_empty_page(http: httpx2.Client, store: Store) -> None:
    expected = {"data": [], "last_seq": 0, "next_after": 0, "has_more": False, "truncated": False}
    assert page(http, store.id) == expected
    assert page(http, store.id, after=0) == expected


def test_each_version_is_one_change_in_the_order_of_the_commits(
    http: httpx2.Client, store: Store, memories: Memories, versions: MemoryVersions
) -> None:
    memory = memories.create(store.id, path="/a.md", content="first")
    memories.update(memory.id, memory_store_id=store.id, content="zweite, größer")
    memories.update(memory.id, memory_store_id=store.id, path="/b/c.md")
    memories.update(memory.id, memory_store_id=store.id, path="/b/c.md")  # changes nothing
    memories.create(store.id, path="/a.md", content="")
    memories.delete(memory.id, memory_store_id=store.id)
    changes = page(http, store.id)["data"]
    assert [(change["seq"], change["operation"], change["path"]) for change in changes] == [
        (1, "created", "/a.md"),
        (2, "modified", "/a.md"),
        (3, "modified", "/b/c.md"),
        (4, "created", "/a.md"),
        (5, "deleted", "/b/c.md"),
    ]
    listed = [version.to_dict(mode="json") for version in versions.list(store.id)]
    for change, version in zip(changes, reversed(listed), strict=True):
        same = CHANGE_KEYS - {"type", "seq", "memory_version_id"}
        assert {key: change[key] for key in same} == {key: version.get(key) for key in same}
        assert change["memory_version_id"] == version["id"]
    assert changes[4]["content_sha256"] is changes[4]["content_size_bytes"] is None


def test_pages_lead_from_one_to_the_next(http: httpx2.Client, store: Store, memories: Memories) -> None:
    fill(memories, store, 7)
    seen: list[int] = []
    after, pages = 0, 0
    while True:
        body = page(http, store.id, after=after, limit=3)
        seen += numbers_of(body)
        after, pages = body["next_after"], pages + 1
        assert body["last_seq"] == 7
        if not body["has_more"]:
            break
    assert (seen, pages) == (list(range(1, 8)), 3)
    assert page(http, store.id, after=7)["data"] == []
    assert numbers_of(page(http, store.id, after=4, limit=1000)) == [5, 6, 7]
    full = page(http, store.id, after=4, limit=3)
    assert (numbers_of(full), full["has_more"]) == ([5, 6, 7], False)


def test_a_page_has_100_changes_unless_told(http: httpx2.Client, store: Store, memories: Memories) -> None:
    fill(memories, store, 102)
    body = page(http, store.id)
    assert numbers_of(body) == list(range(1, 101))
    assert body["has_more"]


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("after=-1", "after: "),
        ("after=1.0", "after: "),
        ("after=", "after: "),
        ("after=9999999999999999999", "after: "),
        ("after=1", "after: is 1, but the newest change of the memory store is 0"),
        ("after=999999999999999999", "after: is 999999999999999999, but"),
        ("limit=0", "limit: "),
        ("limit=1001", "limit: "),
        ("page=page_x", "unexpected query parameter: page"),
    ],
)
@pytest.mark.parametrize("accept", ["application/json", EVENT_STREAM])
def test_what_can_be_no_position_is_400(http: httpx2.Client, store: Store, query: str, told: str, accept: str) -> None:
    response = http.get(f"/v1/memory_stores/{store.id}/changes?{query}", headers={"accept": accept})
    assert check_refusal(response, 400)["message"].startswith(told)


def test_a_redacted_version_keeps_its_place_without_what_it_told(
    http: httpx2.Client, store: Store, memories: Memories, versions: MemoryVersions
) -> None:
    fill(memories, store, 2)
    first = page(http, store.id)["data"][0]
    versions.redact(first["memory_version_id"], memory_store_id=store.id)
    redacted, kept = page(http, store.id)["data"]
    assert redacted.pop("redacted_at") is not None
    assert redacted == {
        **{key: value for key, value in first.items() if key != "redacted_at"},
        "path": None,
        "content_sha256": None,
        "content_size_bytes": None,
    }
    assert kept["path"] == "/memory.md"


@pytest.mark.parametrize("accept", ["application/json", EVENT_STREAM])
def test_another_workspaces_store_is_not_there(guest: anthropic.Anthropic, store: Store, accept: str) -> None:
    with httpx2.Client(base_url=guest.base_url, headers={"x-api-key": str(guest.api_key)}, trust_env=False) as http:
        response = http.get(f"/v1/memory_stores/{store.id}/changes", headers={"accept": accept})
    check_refusal(response, 404)


def test_an_archived_stores_history_can_be_followed(
    client: anthropic.Anthropic, http: httpx2.Client, store: Store, memories: Memories
) -> None:
    memory_id = fill(memories, store, 2)
    client.beta.memory_stores.archive(store.id)
    with events(http, store.id, after=1) as stream:
        assert [change["seq"] for change in stream.changes(1)] == [2]
        memories.delete(memory_id, memory_store_id=store.id)
        assert [change["operation"] for change in stream.changes(1)] == ["deleted"]


# Streams


@pytest.mark.parametrize(
    ("accept", "is_stream"),
    [
        (EVENT_STREAM, True),
        ("Text/Event-Stream; charset=utf-8", True),
        ("application/json, text/event-stream", True),
        ("application/json;q=0.4, text/event-stream;q=0.5", True),
        ("text/event-stream;q=0", False),
        ("text/event-stream; charset=utf-8; q=0.000", False),
        ("application/json, text/event-stream;q=0.5", False),
        ("text/event-streams, x-text/event-stream", False),
        ("text/*, */*", False),
        ("", False),
    ],
)
def test_a_stream_is_for_those_that_want_one(http: httpx2.Client, store: Store, accept: str, is_stream: bool) -> None:
    with http.stream("GET", f"/v1/memory_stores/{store.id}/changes", headers={"accept": accept}) as answer:
        media_type = answer.headers["content-type"].partition(";")[0]
    assert media_type == (EVENT_STREAM if is_stream else "application/json")


def test_a_stream_first_shows_that_it_is_live_then_what_was_then_what_happens(
    http: httpx2.Client, store: Store, memories: Memories
) -> None:
    memory_id = fill(memories, store, 3)
    with events(http, store.id, after=1) as stream:
        first = stream.next(with_comments=True)
        assert first is not None
        assert first.name == ":"
        seen = stream.changes(2)
        memories.update(memory_id, memory_store_id=store.id, path="/renamed.md")
        seen += stream.changes(1)
        memories.delete(memory_id, memory_store_id=store.id)
        seen += stream.changes(1)
    assert [change["seq"] for change in seen] == [2, 3, 4, 5]
    assert seen == page(http, store.id, after=1)["data"]


@pytest.mark.any_backend
def test_a_quiet_stream_sends_heartbeats(http: httpx2.Client, store: Store) -> None:
    with events(http, store.id) as stream:
        found = [stream.next(with_comments=True) for _ in range(2)]
        assert found[1] == Event(":", "heartbeat")


def test_last_event_id_wins_over_after(http: httpx2.Client, store: Store, memories: Memories) -> None:
    fill(memories, store, 4)
    with events(http, store.id, after=1, last_event_id="3") as stream:
        assert [change["seq"] for change in stream.changes(1)] == [4]


@pytest.mark.parametrize("text", ["", "-1", "1.5", "x", "5", "9" * 19])
def test_a_last_event_id_that_was_none_is_400(http: httpx2.Client, store: Store, memories: Memories, text: str) -> None:
    fill(memories, store, 4)
    with events(http, store.id, last_event_id=text) as stream:
        check_refusal(stream.response, 400)


def test_a_page_has_nothing_to_do_with_last_event_id(http: httpx2.Client, store: Store) -> None:
    assert http.get(f"/v1/memory_stores/{store.id}/changes", headers={"last-event-id": "x"}).status_code == 200


def test_a_reader_that_comes_again_misses_nothing_and_sees_nothing_twice(
    http: httpx2.Client, store: Store, memories: Memories
) -> None:
    memory_id = fill(memories, store, 1)
    last, seen = "0", []
    for turn in range(8):
        with events(http, store.id, last_event_id=last) as stream:
            for change in stream.changes(1 + turn % 2):
                seen.append(change["seq"])
                last = str(change["seq"])
                memories.update(memory_id, memory_store_id=store.id, content=f"{turn} {change['seq']}")
                memories.update(memory_id, memory_store_id=store.id, content=f"{turn} {change['seq']} again")
    assert seen == list(range(1, len(seen) + 1))


def test_a_backlog_of_many_pages_comes_whole(http: httpx2.Client, store: Store, memories: Memories) -> None:
    fill(memories, store, 1_203)
    with events(http, store.id) as stream:
        assert [change["seq"] for change in stream.changes(1_203)] == list(range(1, 1_204))


def test_a_stream_ends_with_its_store(client: anthropic.Anthropic, http: httpx2.Client, memories: Memories) -> None:
    store = client.beta.memory_stores.create(name="to be deleted")
    fill(memories, store, 1)
    with events(http, store.id) as stream:
        stream.changes(1)
        client.beta.memory_stores.delete(store.id)
        assert stream.rest() == [Event("gone", {"memory_store_id": store.id})]
    with events(http, store.id) as stream:
        check_refusal(stream.response, 404)


@pytest.mark.any_backend
def test_a_stream_ends_when_its_key_is_revoked(server: Server, store: Store, memories: Memories) -> None:
    key = make_key(server, "default")
    with bare_http(server, x_api_key=key.secret) as http, events(http, store.id) as stream:
        fill(memories, store, 1)
        stream.changes(1)
        server.cli("keys", "revoke", key.id)
        assert stream.rest() == [Event("gone", {"memory_store_id": store.id})]


@pytest.mark.any_backend
@pytest.mark.parametrize("ending", ["revoked", "archived"])
def test_a_sessions_stream_ends_with_its_token(
    open_session: SessionMaker,
    client: anthropic.Anthropic,
    http: httpx2.Client,
    store: Store,
    memories: Memories,
    ending: str,
) -> None:
    session = open_session({"type": "memory_store", "memory_store_id": store.id, "access": "read_only"})
    token = open_session.token(session.id)
    with bare_http(open_session.server, x_api_key=token["token"]) as agent, events(agent, store.id) as stream:
        fill(memories, store, 1)
        stream.changes(1)
        if ending == "revoked":
            assert http.delete(f"/v1/sessions/{session.id}/tokens/{token['id']}").status_code == 200
        else:
            client.beta.sessions.archive(session.id)
        assert stream.rest() == [Event("gone", {"memory_store_id": store.id})]


def test_a_session_follows_the_stores_that_it_has_attached_and_no_other(
    open_session: SessionMaker, store: Store, sample: Sample
) -> None:
    session = open_session(sample.store)
    with bare_http(open_session.server, x_api_key=open_session.token(session.id)["token"]) as agent:
        for route in ("changes", "snapshot"):
            assert agent.get(f"/v1/memory_stores/{sample.store}/{route}").status_code == 200
    other = open_session()
    with bare_http(open_session.server, x_api_key=open_session.token(other.id)["token"]) as agent:
        for route in ("changes", "snapshot"):
            check_refusal(agent.get(f"/v1/memory_stores/{store.id}/{route}"), 404)


def test_a_client_that_leaves_is_not_listened_for_any_more(http: httpx2.Client, store: Store) -> None:
    def open_streams() -> float:
        lines = http.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(LIVE_STREAMS))

    before = open_streams()
    with events(http, store.id) as stream:
        stream.next(with_comments=True)
        until(lambda: open_streams() == before + 1, "the stream is open")
    until(lambda: open_streams() <= before, "the stream is closed at the server, too")


def test_sigterm_ends_streams_at_once_and_answers_what_is_under_way(backend: Backend, tmp_path_factory: Any) -> None:
    with serve(backend.environment(tmp_path_factory.mktemp("draining"))) as server, server.http() as http:
        with server.client() as client:
            store = client.beta.memory_stores.create(name="followed")
            fill(client.beta.memory_stores.memories, store, 1)
        ended: list[int] = []
        with events(http, store.id) as stream:
            stream.changes(1)
            stopping = threading.Thread(target=lambda: ended.append(server.stop()))
            stopping.start()
            assert stream.rest() == [], "it ends as a whole, not in the middle"
            stopping.join()
        assert ended == [0]
        assert "graceful shutdown exceeded" not in server.log.read_text()


# History that is not whole any more


@pytest.fixture
def worn(store: Store, memories: Memories, rows: Rows) -> Store:
    """A store whose changes 1, 2, 3, 6 and 9 have expired; 10 is the newest."""
    fill(memories, store, 10)
    expire(rows, store, 1, 2, 3, 6, 9)
    return store


def test_a_page_says_that_changes_are_missing_and_goes_on_with_what_there_is(http: httpx2.Client, worn: Store) -> None:
    first = page(http, worn.id, limit=2)
    assert (numbers_of(first), first["next_after"], first["truncated"]) == ([4, 5], 5, True)
    second = page(http, worn.id, after=5, limit=2)
    assert (numbers_of(second), second["next_after"], second["truncated"]) == ([7, 8], 8, True)
    third = page(http, worn.id, after=8)
    assert (numbers_of(third), third["next_after"], third["truncated"]) == ([10], 10, True)


def test_a_page_without_a_gap_is_not_truncated_though_older_changes_are_gone(http: httpx2.Client, worn: Store) -> None:
    assert numbers_of(page(http, worn.id, after=3, limit=2)) == [4, 5]
    assert numbers_of(page(http, worn.id, after=6, limit=2)) == [7, 8]
    assert numbers_of(page(http, worn.id, after=9)) == [10]


def test_a_gap_at_the_very_end_is_told(http: httpx2.Client, store: Store, memories: Memories, rows: Rows) -> None:
    memories.delete(fill(memories, store, 2), memory_store_id=store.id)
    expire(rows, store, 2, 3)
    body = page(http, store.id, after=1)
    assert body == {"data": [], "last_seq": 3, "next_after": 3, "has_more": False, "truncated": True}
    assert numbers_of(page(http, store.id)) == [1]
    assert page(http, store.id, after=3)["truncated"] is False


def test_a_stream_says_once_that_changes_are_missing_and_goes_on_after_the_newest(
    http: httpx2.Client, worn: Store, memories: Memories
) -> None:
    memory_id = page(http, worn.id)["data"][0]["memory_id"]
    with events(http, worn.id, after=3) as stream:
        assert [change["seq"] for change in stream.changes(2)] == [4, 5]
        assert stream.next() == Event("truncated", {"last_seq": 10})
        memories.update(memory_id, memory_store_id=worn.id, content="after the gap")
        assert [change["seq"] for change in stream.changes(1)] == [11]
    with events(http, worn.id, after=0) as stream:
        assert stream.next() == Event("truncated", {"last_seq": 11})


def test_a_reader_that_was_away_too_long_gets_right_by_a_snapshot(
    http: httpx2.Client, store: Store, memories: Memories, rows: Rows
) -> None:
    """The record of a deletion expires, too: without the snapshot the reader would keep the memory for ever."""
    kept, lost = fill(memories, store, 2, "/kept.md"), fill(memories, store, 1, "/lost.md")
    known = {change["memory_id"]: change["path"] for change in page(http, store.id)["data"]}
    memories.delete(lost, memory_store_id=store.id)
    memories.update(kept, memory_store_id=store.id, path="/moved.md")
    expire(rows, store, 3, 4)
    body = page(http, store.id, after=3)
    assert body["truncated"]
    lines = http.get(f"/v1/memory_stores/{store.id}/snapshot").text.splitlines()
    assert len(lines) == 2
    assert f'"seq":{body["last_seq"]}' in lines[0]
    assert kept in lines[1]
    assert lost in known
