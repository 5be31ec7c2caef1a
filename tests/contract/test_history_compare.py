"""Comparing two versions: GET …/comparisons."""

import subprocess
from pathlib import Path
from typing import Any

import httpx2
import pytest
from anthropic import Anthropic
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store
from hypothesis import given, settings
from hypothesis import strategies as st

from app.contract import ids
from app.contract.lines import split
from app.history import lines
from tests.contract.history_calls import Item, Told, ok
from tests.contract.shapes import VERSION_KEYS, check_refusal
from tests.storage.outside import outside
from tests.support.servers import Server


@pytest.fixture
def told(http: httpx2.Client, client: Anthropic, store: Store) -> Told:
    return Told(http, client, store.id)


def patched(directory: Path, before: str, unified: str) -> str:
    """What the program `patch` makes of a text."""
    (directory / "text").write_bytes(before.encode())
    done = subprocess.run(
        ["patch", "--binary", "-s", "text"], cwd=directory, input=unified.encode(), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return (directory / "text").read_bytes().decode()


def test_two_versions_are_compared_by_lines(told: Told) -> None:
    memory = told.create("/a.md", "one\ntwo\nthree\n")
    second = told.update(memory, content="one\n2\nthree\nfour")
    body = ok(told.compare(**{"from": memory["memory_version_id"], "to": second["memory_version_id"]}))
    assert body["type"] == "memory_version_comparison"
    assert body["memory_store_id"] == told.store_id
    for side, version_id in (
        ("from_version", memory["memory_version_id"]),
        ("to_version", second["memory_version_id"]),
    ):
        assert set(body[side]) == VERSION_KEYS
        assert (body[side]["id"], body[side]["content"]) == (version_id, None)
    assert (body["path_changed"], body["content_changed"]) == (False, True)
    assert (body["added_lines"], body["removed_lines"]) == (2, 1)
    assert body["unified"] == (
        "--- a/a.md\n+++ b/a.md\n@@ -1,3 +1,4 @@\n one\n-two\n+2\n three\n+four\n\\ No newline at end of file\n"
    )
    (hunk,) = body["hunks"]
    assert [hunk[field] for field in ("from_start", "from_count", "to_start", "to_count")] == [1, 3, 1, 4]
    assert [(line["type"], line["from_line"], line["to_line"], line["text"]) for line in hunk["lines"]] == [
        ("context", 1, 1, "one"),
        ("removed", 2, None, "two"),
        ("added", None, 2, "2"),
        ("context", 3, 3, "three"),
        ("added", None, 4, "four"),
    ]
    assert [line["has_line_feed"] for line in hunk["lines"]] == [True, True, True, True, False]


def test_without_from_a_version_is_compared_with_the_one_before_it(told: Told) -> None:
    memory = told.create("/a.md", "one\n")
    told.create("/other.md", "between")
    second = told.update(memory, content="two\n")
    body = ok(told.compare(to=second["memory_version_id"]))
    assert body["from_version"]["id"] == memory["memory_version_id"]
    assert body["unified"].endswith("-one\n+two\n")
    other = told.create("/newest.md", "newest")
    assert ok(told.compare())["to_version"]["id"] == other["memory_version_id"]
    assert ok(told.compare(**{"from": memory["memory_version_id"]})) == body
    first = ok(told.compare(to=memory["memory_version_id"]))
    assert first["from_version"] is None
    assert first["unified"] == "--- /dev/null\n+++ b/a.md\n@@ -0,0 +1 @@\n+one\n"


def test_a_rename_tells_the_path_and_no_lines(told: Told) -> None:
    memory = told.create("/a.md", "one\n")
    renamed = told.update(memory, path="/b.md")
    body = ok(told.compare(to=renamed["memory_version_id"]))
    assert (body["path_changed"], body["content_changed"], body["unified"], body["hunks"]) == (True, False, "", [])
    assert (body["from_version"]["path"], body["to_version"]["path"]) == ("/a.md", "/b.md")


def test_a_deletion_takes_all_lines(told: Told) -> None:
    memory = told.create("/a.md", "one\ntwo\n")
    told.delete(memory)
    body = ok(told.compare(to=told.versions(memory)[-1]["id"]))
    assert body["unified"] == "--- a/a.md\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-one\n-two\n"
    assert (body["path_changed"], body["content_changed"]) == (False, True)


def test_versions_of_different_memories_may_be_compared(told: Told) -> None:
    one, two = told.create("/a.md", "same\n"), told.create("/b.md", "same\n")
    body = ok(told.compare(**{"from": one["memory_version_id"], "to": two["memory_version_id"]}))
    assert (body["path_changed"], body["content_changed"]) == (True, False)


def test_a_redacted_version_is_refused_in_words(told: Told) -> None:
    memory = told.create("/a.md", "one\n")
    second = told.update(memory, content="two\n")
    told.redact(memory["memory_version_id"])
    for query in ({"to": second["memory_version_id"]}, {"to": memory["memory_version_id"]}):
        error = check_refusal(told.compare(**query), 400)
        assert memory["memory_version_id"] in error["message"]
        assert "is redacted" in error["message"]


def test_an_expired_version_before_is_told(told: Told, server: Server) -> None:
    memory = told.create("/a.md", "one\n")
    second = told.update(memory, content="two\n")
    with outside(server.environment) as view:
        view.rows.execute(f"DELETE FROM memory_versions WHERE id = '{memory['memory_version_id']}'")
    error = check_refusal(told.compare(to=second["memory_version_id"]), 400)
    assert "has expired" in error["message"]


def test_what_is_missing_or_unknown_is_refused(told: Told, guest: Anthropic) -> None:
    memory = told.create("/a.md", "one\n")
    empty = told.client.beta.memory_stores.create(name="empty").id
    assert "no versions" in check_refusal(Told(told.http, told.client, empty).compare(), 404)["message"]
    told.client.beta.memory_stores.delete(empty)
    for unknown in (ids.new(ids.VERSION), "", "\0", "é", "\ud7ff"):
        check_refusal(told.compare(to=unknown), 404)
    check_refusal(told.compare(**{"to": memory["memory_version_id"], "from": ids.new(ids.VERSION)}), 404)
    check_refusal(told.compare(to=memory["memory_version_id"], extra="x"), 400)
    foreign = told.http.get(
        f"{told.url}/comparisons",
        params={"to": memory["memory_version_id"]},
        headers={"x-api-key": guest.api_key or ""},
    )
    check_refusal(foreign, 404)


TEXTS = st.text(st.sampled_from("abc\n\r\u2028é"), max_size=60)


@settings(max_examples=60)
@given(before=TEXTS, after=TEXTS)
def test_patch_makes_the_second_text_of_the_first(
    before: str, after: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    hunks = lines.hunks(split(before), split(after))
    unified = lines.unified(hunks, "a/text", "b/text")
    assert bool(unified) == (before != after)
    if unified:
        assert patched(tmp_path_factory.mktemp("patch"), before, unified) == after


def test_a_large_memory_is_compared_over_the_api(told: Told) -> None:
    memory = told.create("/a.md", "\n" * 102_400)
    second = told.update(memory, content="x\n" * 51_200)
    body: dict[str, Any] = ok(told.compare(to=second["memory_version_id"]))
    assert (body["added_lines"], body["removed_lines"]) == (51_200, 102_400)
    item: Item = body["hunks"][0]
    assert item["from_count"] == 102_400
