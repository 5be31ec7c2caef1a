"""Rolling a whole store back: POST …/rollback."""

from datetime import datetime, timedelta
from typing import Any

import httpx2
import pytest
from anthropic import Anthropic
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from app.contract import ids
from tests.contract.history_calls import Item, Told, ok
from tests.contract.shapes import PATH_CONFLICT, check_refusal
from tests.support.backends import Backend
from tests.support.servers import serve


@pytest.fixture
def told(http: httpx2.Client, client: Anthropic, store: Store) -> Told:
    return Told(http, client, store.id)


def story(told: Told) -> dict[str, Item]:
    """Four memories (changes 1 to 4), and what became of them since (5 to 10)."""
    made = {name: told.create(f"/{name}", name) for name in ("changed", "deleted", "moved", "steady")}
    told.update(made["changed"], content="other")
    told.delete(made["deleted"])
    told.update(made["moved"], path="/elsewhere")
    made["new"] = told.create("/deleted", "at the same place")
    told.update(made["steady"], content="for a while")
    told.update(made["steady"], content="steady")
    return made


def test_everything_is_as_it_was_with_one_version_for_each_memory_that_changes(told: Told) -> None:
    made = story(told)
    before = told.tree_as_of(seq=4)
    body = ok(told.roll_back(seq=4))
    assert told.tree() == before
    assert {name: body[name] for name in ("type", "memory_store_id", "seq", "last_seq", "dry_run", "skipped")} == {
        "type": "memory_store_rollback",
        "memory_store_id": told.store_id,
        "seq": 4,
        "last_seq": 14,
        "dry_run": False,
        "skipped": [],
    }
    assert [(change["operation"], change["memory_id"], change["path"], change["previous_path"])
            for change in body["changes"]] == [
        ("deleted", made["new"]["id"], "/deleted", "/deleted"),
        ("modified", made["changed"]["id"], "/changed", "/changed"),
        ("modified", made["moved"]["id"], "/moved", "/elsewhere"),
        ("created", made["deleted"]["id"], "/deleted", None),
    ]  # fmt: skip
    assert [change["restored_version_id"] for change in body["changes"]] == [
        None,
        *(made[name]["memory_version_id"] for name in ("changed", "moved", "deleted")),
    ]
    versions = told.versions()[10:]
    assert [version["id"] for version in versions] == [change["memory_version_id"] for change in body["changes"]]
    assert [version["operation"] for version in versions] == ["deleted", "modified", "modified", "created"]
    assert {version["created_by"]["type"] for version in versions} == {"api_actor"}
    # And it can be undone itself.
    ok(told.roll_back(seq=10))
    assert told.tree() == told.tree_as_of(seq=10)
    assert told.last_seq == 18


def test_a_dry_run_tells_the_same_and_changes_nothing(told: Told) -> None:
    story(told)
    now = told.tree()
    dry = ok(told.roll_back(seq=4, dry_run=True))
    assert (dry["dry_run"], dry["last_seq"]) == (True, 10)
    assert all(change["memory_version_id"] is None for change in dry["changes"])
    assert (told.tree(), told.last_seq) == (now, 10)
    done = ok(told.roll_back(seq=4))
    assert [{**change, "memory_version_id": None} for change in done["changes"]] == dry["changes"]


def test_a_time_names_the_same_state_as_its_number(told: Told) -> None:
    story(told)
    body = ok(told.roll_back(at=told.versions()[3]["created_at"]))
    assert body["seq"] == 4
    assert told.tree() == told.tree_as_of(seq=4)


def test_to_where_it_is_makes_no_versions(told: Told) -> None:
    story(told)
    body = ok(told.roll_back(seq=10))
    assert (body["changes"], body["last_seq"], told.last_seq) == ([], 10, 10)


def test_to_the_very_beginning_deletes_everything(told: Told) -> None:
    story(told)
    ok(told.roll_back(seq=0))
    assert told.tree() == {}
    ok(told.roll_back(seq=4))
    assert told.tree() == told.tree_as_of(seq=4)


def test_memories_may_take_each_others_places(told: Told) -> None:
    one, two, deep = told.create("/a", "1"), told.create("/b", "2"), told.create("/d/e", "3")
    told.update(one, path="/tmp")
    told.update(two, path="/a")
    told.update(one, path="/b")
    told.update(deep, path="/x")
    told.create("/d", "a file where a directory was")
    ok(told.roll_back(seq=3))
    assert told.tree() == {"/a": (one["id"], "1"), "/b": (two["id"], "2"), "/d/e": (deep["id"], "3")}
    # A follower never sees two memories in one place: one of the two goes first and comes back last.
    versions = told.versions()[8:]
    assert [version["operation"] for version in versions] == ["deleted", "deleted", "modified", "modified", "created"]
    assert versions[0]["memory_id"] == versions[-1]["memory_id"]
    assert versions[0]["memory_id"] in (one["id"], two["id"])
    for seq in range(told.last_seq, -1, -1):
        ok(told.roll_back(seq=seq, dry_run=True))


def test_a_chain_of_memories_moves_in_an_order_in_which_each_place_is_free(told: Told) -> None:
    made = [told.create(f"/{number}", str(number)) for number in range(5)]
    for number in (4, 3, 2, 1, 0):
        told.update(made[number], path=f"/{number + 1}")
    body = ok(told.roll_back(seq=5))
    assert [(change["operation"], change["path"]) for change in body["changes"]] == [
        ("modified", f"/{number}") for number in range(5)
    ]
    ok(told.roll_back(seq=10))
    assert told.tree() == {f"/{number + 1}": (made[number]["id"], str(number)) for number in range(5)}


def test_the_middle_of_a_move_is_no_state_to_go_back_to(told: Told) -> None:
    told.create("/a/a/x", "deep")
    told.create("/a/x", "flat")
    ok(told.http.post(f"{told.url}/moves", json={"from": "/a/", "to": "/"}))
    now = told.tree()
    assert set(now) == {"/a/x", "/x"}
    assert "in the middle of a move" in check_refusal(told.roll_back(seq=3), 400)["message"]
    assert (told.tree(), told.last_seq) == (now, 4)
    ok(told.roll_back(seq=2))
    assert set(told.tree()) == {"/a/a/x", "/a/x"}


def test_a_redacted_version_is_refused_or_left_out(told: Told) -> None:
    redacted, other, gone = told.create("/redacted", "1"), told.create("/other", "2"), told.create("/gone", "3")
    told.update(redacted, content="now")
    told.update(other, content="now")
    told.delete(gone)
    told.redact(redacted["memory_version_id"])
    told.redact(gone["memory_version_id"])
    now = told.tree()
    for dry_run in (True, False):
        message = check_refusal(told.roll_back(seq=3, dry_run=dry_run), 400)["message"]
        assert redacted["id"] in message
        assert gone["id"] in message
        assert "skip_redacted" in message
    assert told.tree() == now
    body = ok(told.roll_back(seq=3, skip_redacted=True))
    assert {(item["memory_id"], item["memory_version_id"], item["reason"]) for item in body["skipped"]} == {
        (redacted["id"], redacted["memory_version_id"], "redacted"),
        (gone["id"], gone["memory_version_id"], "redacted"),
    }
    assert told.tree() == {"/redacted": (redacted["id"], "now"), "/other": (other["id"], "2")}


@pytest.mark.parametrize("path", ["/other", "/other/below"])
def test_a_memory_that_is_left_as_it_is_may_be_in_the_way(told: Told, path: str) -> None:
    redacted, other = told.create("/redacted", "1"), told.create("/other", "2")
    told.update(other, path="/elsewhere")
    told.update(redacted, path=path)
    told.redact(redacted["memory_version_id"])
    error = check_refusal(told.roll_back(seq=2, skip_redacted=True), 409, PATH_CONFLICT)
    assert (error["conflicting_memory_id"], error["conflicting_path"]) == (redacted["id"], path)
    assert set(told.tree()) == {"/elsewhere", path}


def test_a_hold_refuses_only_what_would_delete(told: Told) -> None:
    memory = told.create("/a", "1")
    told.update(memory, content="2")
    ok(told.http.post(f"{told.url}/hold", json={}))
    ok(told.roll_back(seq=1))
    assert told.tree() == {"/a": (memory["id"], "1")}
    answer = told.roll_back(seq=0)
    assert answer.status_code == 400
    assert "legal hold" in answer.json()["error"]["message"]
    assert told.tree() == {"/a": (memory["id"], "1")}
    ok(told.http.delete(f"{told.url}/hold"))
    ok(told.roll_back(seq=0))


def test_archived_and_unknown_stores_and_other_points_are_refused(told: Told, http: httpx2.Client) -> None:
    told.create("/a", "1")
    made = datetime.fromisoformat(told.http.get(told.url).json()["created_at"])
    bodies: list[dict[str, Any]] = [
        {},
        {"seq": 0, "at": "2026-11-20T00:00:00Z"},
        {"seq": 2},
        {"seq": "1"},
        {"seq": 1, "dry_run": "yes"},
        {"at": "yesterday"},
        {"at": 12},
        {"at": (made - timedelta(seconds=1)).isoformat()},
        {"seq": 0, "everything": True},
    ]
    for body in bodies:
        check_refusal(told.roll_back(**body), 400)
    for no_text in (12, 1.5e9, True):
        assert "RFC 3339" in check_refusal(told.roll_back(at=no_text), 400)["message"]
    for no_year in ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"):
        assert "year" in check_refusal(told.roll_back(at=no_year), 400)["message"]
    check_refusal(http.post(f"/v1/memory_stores/{ids.new(ids.STORE)}/rollback", json={"seq": 0}), 404)
    ok(http.post(f"{told.url}/archive"))
    assert "is archived" in check_refusal(told.roll_back(seq=0), 400)["message"]
    assert set(told.tree()) == {"/a"}


def test_the_limits_of_a_store_hold(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> None:
    environment = backend.environment(tmp_path_factory.mktemp("quota"))
    with serve(environment) as server, server.http() as http, server.client(max_retries=0) as client:
        store_id = client.beta.memory_stores.create(name="shrunk").id
        told = Told(http, client, store_id)
        made = [told.create(f"/{number}", "x" * 10) for number in range(3)]
        told.update(made[0], content="")
        told.delete(made[1])
        api_key = server.api_key
    for setting, value, words in (
        ("MEMSTORE_MAX_MEMORIES_PER_STORE", "2", "at most 2 are allowed"),
        ("MEMSTORE_MAX_STORE_BYTES", "25", "at most 25 are allowed"),
    ):
        limits = {setting: value, "MEMSTORE_BOOTSTRAP_API_KEY": api_key}
        with (
            serve(environment, settings=limits) as server,
            server.http() as http,
            server.client(max_retries=0) as client,
        ):
            told = Told(http, client, store_id)
            assert words in check_refusal(told.roll_back(seq=3), 400)["message"]
            assert told.last_seq == 5
