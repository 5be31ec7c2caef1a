"""A store as it was: GET …/as_of/memories and …/as_of/memories/{id}."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from anthropic import Anthropic
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from app.contract import ids
from tests.contract.history_calls import Told, ok
from tests.contract.shapes import VERSION_KEYS, check_refusal
from tests.storage.outside import outside
from tests.support.servers import Server

DAY = 86_400 * 1_000_000


@pytest.fixture
def told(http: httpx2.Client, client: Anthropic, store: Store) -> Told:
    return Told(http, client, store.id)


def age(server: Server, told: Told, days: float, where: str = "true") -> None:
    """Let versions of the store, and the store, have been made so many days ago."""
    moment = int(time.time() * 1_000_000 - days * DAY)
    with outside(server.environment) as view:
        view.rows.execute(
            f"UPDATE memory_versions SET created_at = {moment} + seq WHERE store_id = '{told.store_id}' AND {where}"
        )
        view.rows.execute(
            f"UPDATE memory_stores SET created_at = {moment} WHERE id = '{told.store_id}' AND created_at > {moment}"
        )


def expire(server: Server) -> None:
    """Let retention do its work: 30 days, and of a live memory the newest 10 versions."""
    server.cli("sweep")


def test_every_state_is_told_by_its_number_and_by_its_time(told: Told) -> None:
    states: list[dict[str, tuple[str, str]]] = [{}]
    a = told.create("/a", "1")
    states.append({"/a": (a["id"], "1")})
    b = told.create("/b/c", "2")
    states.append({**states[-1], "/b/c": (b["id"], "2")})
    told.update(a, content="3")
    states.append({**states[-1], "/a": (a["id"], "3")})
    told.update(b, path="/b/d")
    states.append({"/a": (a["id"], "3"), "/b/d": (b["id"], "2")})
    told.delete(a)
    states.append({"/b/d": (b["id"], "2")})
    c = told.create("/a", "4")
    states.append({"/a": (c["id"], "4"), "/b/d": (b["id"], "2")})
    told.delete(c)
    states.append({"/b/d": (b["id"], "2")})
    ok(told.restore(a["memory_version_id"]))
    states.append({"/a": (a["id"], "1"), "/b/d": (b["id"], "2")})
    assert told.last_seq == len(states) - 1
    versions = told.versions()
    for seq, state in enumerate(states):
        assert told.tree_as_of(seq=seq) == state, seq
        if seq:
            at = versions[seq - 1]["created_at"]
            body = ok(told.as_of(at=at))
            assert body["seq"] == seq
            assert told.tree_as_of(at=at) == state, seq
    just_before = datetime.fromisoformat(versions[3]["created_at"]) - timedelta(microseconds=1)
    assert told.tree_as_of(at=just_before.isoformat().replace("+00:00", "Z")) == states[3]
    assert told.tree_as_of(at=told.http.get(told.url).json()["created_at"]) == {}


def test_an_entry_is_the_version_that_was_in_force(told: Told) -> None:
    memory = told.create("/a", "one")
    told.update(memory, content="two")
    (entry,) = ok(told.as_of(seq=1))["data"]
    assert set(entry) == VERSION_KEYS
    version = ok(told.http.get(f"{told.url}/memory_versions/{memory['memory_version_id']}"))
    assert entry == {**version, "content": None}
    (full,) = ok(told.as_of(seq=1, view="full"))["data"]
    assert full == version
    assert ok(told.retrieve_as_of(memory, seq=1)) == version
    assert ok(told.retrieve_as_of(memory, seq=1, view="basic")) == entry


def test_pages_are_of_one_state_whatever_happens_between_them(told: Told) -> None:
    made = {path: told.create(path, path) for path in ("/b", "/a!", "/a/x", "/a", "/c/d") if path != "/a"}
    at = told.versions()[-1]["created_at"]
    first = ok(told.as_of(at=at, limit=1))
    assert first["seq"] == 4
    told.delete(made["/a/x"])
    told.create("/a/new", "since")
    told.update(made["/b"], path="/z")
    paths = [item["path"] for item in first["data"]]
    cursor = first["next_page"]
    while cursor is not None:
        page = ok(told.as_of(at=at, limit=1, page=cursor))
        assert page["seq"] == 4
        paths += [item["path"] for item in page["data"]]
        cursor = page["next_page"]
    assert paths == ["/a!", "/a/x", "/b", "/c/d"]
    error = check_refusal(told.as_of(seq=3, limit=1, page=first["next_page"]), 400)
    assert "is not a cursor" in error["message"]


def test_a_prefix_narrows_the_listing(told: Told) -> None:
    for path in ("/a/x", "/a/y/z", "/ab", "/b"):
        told.create(path, path)
    moved = told.create("/a/moved", "m")
    told.update(moved, path="/elsewhere")
    assert [item["path"] for item in told.whole_as_of(seq=5, path_prefix="/a/")] == ["/a/moved", "/a/x", "/a/y/z"]
    assert [item["path"] for item in told.whole_as_of(seq=6, path_prefix="/a/")] == ["/a/x", "/a/y/z"]
    check_refusal(told.as_of(seq=5, path_prefix="/a"), 400)


def test_redacted_versions_stand_at_the_end_as_such(told: Told) -> None:
    made = [told.create(f"/{name}", name) for name in "abc"]
    for memory in made[:2]:
        told.update(memory, content="since")
        told.redact(memory["memory_version_id"])
    for prefix in ("/", "/nowhere/"):
        found = told.whole_as_of(seq=3, path_prefix=prefix, limit=1)
        plain = [item for item in found if item["redacted_at"] is None]
        redacted = found[len(plain) :]
        assert [item["path"] for item in plain] == (["/c"] if prefix == "/" else [])
        assert [item["memory_id"] for item in redacted] == sorted(memory["id"] for memory in made[:2])
        assert all(item["path"] is item["content_sha256"] is None for item in redacted)
    entry = ok(told.retrieve_as_of(made[0], seq=3))
    assert (entry["redacted_at"] is not None, entry["content"], entry["path"]) == (True, None, None)


def test_a_memory_is_found_only_while_it_was_there(told: Told) -> None:
    told.create("/other", "")
    memory = told.create("/a", "one")
    told.update(memory, content="two")
    told.delete(memory)
    ok(told.restore(memory["memory_version_id"]))
    for seq, content in ((1, None), (2, "one"), (3, "two"), (4, None), (5, "one")):
        answer = told.retrieve_as_of(memory, seq=seq)
        if content is None:
            assert f"after change {seq}" in check_refusal(answer, 404)["message"]
        else:
            assert ok(answer)["content"] == content
    check_refusal(told.retrieve_as_of({"id": ids.new(ids.MEMORY)}, seq=2), 404)


def test_exactly_one_point_is_asked_for_and_it_has_come(told: Told, http: httpx2.Client) -> None:
    memory = told.create("/a", "one")
    at = told.versions()[0]["created_at"]
    made = datetime.fromisoformat(told.http.get(told.url).json()["created_at"])
    before = (made - timedelta(seconds=1)).isoformat()
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    refused: list[tuple[dict[str, Any], str]] = [
        ({}, "exactly one"),
        ({"seq": 1, "at": at}, "exactly one"),
        ({"seq": 2}, "newest change of the memory store is 1"),
        ({"seq": -1}, "seq"),
        ({"seq": "1_0"}, "seq"),
        ({"at": "yesterday"}, "RFC 3339"),
        ({"at": later}, "has not come yet"),
        # In UTC these are in the years 0 and 10,000.
        ({"at": "0001-01-01T00:00:00+23:59"}, "year"),
        ({"at": "9999-12-31T23:59:59-23:59"}, "year"),
        ({"at": before}, "before the memory store was made"),
    ]
    for query, words in refused:
        for answer in (told.as_of(**query), told.retrieve_as_of(memory, **query)):
            assert words in check_refusal(answer, 400)["message"]
    check_refusal(http.get(f"/v1/memory_stores/{ids.new(ids.STORE)}/as_of/memories", params={"seq": 0}), 404)
    check_refusal(http.get(f"/v1/memory_stores/{ids.new(ids.STORE)}/as_of/memories", params={"at": at}), 404)


# What has expired


def test_a_live_memorys_expired_versions_are_told_and_not_passed_over(told: Told, server: Server) -> None:
    memory = told.create("/a", "1")
    steady = told.create("/steady", "s")
    for number in range(2, 15):
        told.update(memory, content=str(number))
    age(server, told, 40)
    expire(server)
    left = [version["id"] for version in told.versions(memory)]
    assert len(left) == 10
    # Changes 1 and 3 to 5 are gone; 6 is the oldest of /a that is left.
    for seq in (1, 2, 5):
        message = check_refusal(told.as_of(seq=seq), 400)["message"]
        assert f"after change {seq}" in message
        assert "complete from change 6 on" in message
        assert told.versions(memory)[0]["created_at"] in message
        check_refusal(told.roll_back(seq=seq, dry_run=True), 400)
    assert told.tree_as_of(seq=6) == {"/a": (memory["id"], "5"), "/steady": (steady["id"], "s")}
    assert told.tree_as_of(seq=0) == {}
    assert "has expired" in check_refusal(told.retrieve_as_of(memory, seq=5), 400)["message"]
    assert ok(told.retrieve_as_of(steady, seq=5))["content"] == "s"
    early = datetime.fromisoformat(told.versions(memory)[0]["created_at"]) - timedelta(microseconds=1)
    check_refusal(told.as_of(at=early.isoformat().replace("+00:00", "Z")), 400)


def test_a_deletion_that_has_expired_is_told(told: Told, server: Server) -> None:
    gone, steady = told.create("/gone", "g"), told.create("/steady", "s")
    told.delete(gone)
    age(server, told, 40)
    expire(server)
    assert [version["memory_id"] for version in told.versions()] == [steady["id"]]
    assert "complete from change 3 on (now)" in check_refusal(told.as_of(seq=2), 400)["message"]
    assert told.tree_as_of(seq=3) == {"/steady": (steady["id"], "s")}
    told.update(steady, content="t")
    assert told.tree_as_of(seq=3) == {"/steady": (steady["id"], "s")}
    assert told.tree_as_of(seq=4) == {"/steady": (steady["id"], "t")}
    check_refusal(told.as_of(seq=1), 400)


def test_a_memory_deleted_lately_whose_text_expired_is_told(told: Told, server: Server) -> None:
    gone = told.create("/gone", "g")
    steady = told.create("/steady", "s")
    told.update(steady, content="t")
    told.delete(gone)
    age(server, told, 40, "seq = 1")
    age(server, told, 5, "seq > 1")
    expire(server)
    # Its text is gone, its deletion (change 4) is not: after change 3 it was there, and nobody can say with what.
    for seq in (2, 3):
        assert "complete from change 4 on" in check_refusal(told.as_of(seq=seq), 400)["message"]
    assert told.tree_as_of(seq=4) == {"/steady": (steady["id"], "t")}
    assert "has expired" in check_refusal(told.retrieve_as_of(gone, seq=3), 400)["message"]


def test_a_head_that_was_never_touched_is_told_however_old(told: Told, server: Server) -> None:
    old = told.create("/old", "o")
    busy = told.create("/busy", "1")
    age(server, told, 90)
    for number in range(2, 20):
        told.update(busy, content=str(number))
    age(server, told, 40, "seq BETWEEN 2 AND 8")
    expire(server)
    found = told.tree_as_of(seq=15)
    assert found == {"/old": (old["id"], "o"), "/busy": (busy["id"], "14")}
