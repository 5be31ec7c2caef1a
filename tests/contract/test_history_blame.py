"""Who wrote each line: GET …/memories/{id}/blame."""

import httpx2
import pytest
from anthropic import Anthropic
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from app.contract import ids
from tests.contract.history_calls import Told, ok
from tests.contract.shapes import check_refusal
from tests.storage.outside import outside
from tests.support.servers import Server


@pytest.fixture
def told(http: httpx2.Client, client: Anthropic, store: Store) -> Told:
    return Told(http, client, store.id)


def origins(body: dict[str, object]) -> list[tuple[str, str, str | None]]:
    """Text, version and doubt of each range; the numbers of the lines must follow each other."""
    ranges = body["ranges"]
    assert isinstance(ranges, list)
    number = 1
    for part in ranges:
        assert part["first_line"] == number
        number += len(part["text"].splitlines())
        assert part["last_line"] == number - 1
    return [(part["text"], part["memory_version_id"], part["doubt"]) for part in ranges]


def test_each_line_is_by_the_version_that_brought_it(told: Told, colleague: Anthropic) -> None:
    memory = told.create("/a.md", "one\ntwo\nthree\n")
    first = memory["memory_version_id"]
    second = colleague.beta.memory_stores.memories.update(
        memory["id"], memory_store_id=told.store_id, content="one\n2\nthree\n"
    ).memory_version_id
    told.update(memory, path="/b.md")  # writes no line
    fourth = told.update(memory, content="zero\none\n2\nthree\n")["memory_version_id"]
    body = ok(told.blame(memory))
    assert (body["type"], body["memory_store_id"], body["memory_id"]) == ("memory_blame", told.store_id, memory["id"])
    assert (body["memory_version_id"], body["path"]) == (fourth, "/b.md")
    assert origins(body) == [
        ("zero\n", fourth, None),
        ("one\n", first, None),
        ("2\n", second, None),
        ("three\n", first, None),
    ]
    versions = {version["id"]: version for version in told.versions(memory)}
    for part in body["ranges"]:
        version = versions[part["memory_version_id"]]
        assert (part["created_by"], part["created_at"]) == (version["created_by"], version["created_at"])
    assert body["ranges"][2]["created_by"] != body["ranges"][1]["created_by"]


def test_a_line_that_comes_back_later_is_by_who_brought_it_back(told: Told) -> None:
    memory = told.create("/a.md", "one\ntwo\n")
    told.update(memory, content="two\n")
    third = told.update(memory, content="one\ntwo\nthree\n")["memory_version_id"]
    first = memory["memory_version_id"]
    assert origins(ok(told.blame(memory))) == [("one\n", third, None), ("two\n", first, None), ("three\n", third, None)]


def test_who_restores_a_text_has_not_written_it(told: Told) -> None:
    memory = told.create("/a.md", "one\n")
    second = told.update(memory, content="one\ntwo\n")["memory_version_id"]
    told.update(memory, content="wiped\n")
    ok(told.restore(second))
    last = told.update(memory, content="one\ntwo\nthree\n")["memory_version_id"]
    assert origins(ok(told.blame(memory))) == [
        ("one\n", memory["memory_version_id"], None),
        ("two\n", second, None),
        ("three\n", last, None),
    ]


def test_a_deleted_memory_is_told_as_it_was_and_keeps_its_authors_when_it_comes_back(told: Told) -> None:
    memory = told.create("/a.md", "one\n")
    second = told.update(memory, content="one\ntwo\n")["memory_version_id"]
    told.delete(memory)
    expected = [("one\n", memory["memory_version_id"], None), ("two\n", second, None)]
    assert origins(ok(told.blame(memory))) == expected
    ok(told.restore(second))
    assert origins(ok(told.blame(memory))) == expected


def test_lines_after_a_redacted_version_are_told_as_doubtful(told: Told) -> None:
    memory = told.create("/a.md", "one\n")
    second = told.update(memory, content="one\ntwo\n")["memory_version_id"]
    third = told.update(memory, content="one\ntwo\nthree\n")["memory_version_id"]
    fourth = told.update(memory, content="one\ntwo\nthree\nfour\n")["memory_version_id"]
    told.redact(second)
    assert origins(ok(told.blame(memory))) == [
        ("one\n", memory["memory_version_id"], None),
        ("two\nthree\n", third, "redacted"),
        ("four\n", fourth, None),
    ]


def test_lines_of_the_oldest_version_left_are_told_as_doubtful(told: Told, server: Server) -> None:
    memory = told.create("/a.md", "one\n")
    second = told.update(memory, content="one\ntwo\n")["memory_version_id"]
    third = told.update(memory, content="one\ntwo\nthree\n")["memory_version_id"]
    with outside(server.environment) as view:
        view.rows.execute(f"DELETE FROM memory_versions WHERE id = '{memory['memory_version_id']}'")
    assert origins(ok(told.blame(memory))) == [("one\ntwo\n", second, "expired"), ("three\n", third, None)]


def test_more_versions_than_are_held_at_a_time_are_walked(told: Told) -> None:
    memory = told.create("/a.md", "0\n")
    made = [memory["memory_version_id"]]
    for number in range(1, 120):
        text = "".join(f"{line}\n" for line in range(number + 1))
        made.append(told.update(memory, content=text)["memory_version_id"])
    assert origins(ok(told.blame(memory))) == [(f"{line}\n", version, None) for line, version in enumerate(made)]


def test_an_empty_memory_has_no_lines(told: Told) -> None:
    assert ok(told.blame(told.create("/a.md", "")))["ranges"] == []


def test_what_has_no_text_left_is_refused(told: Told) -> None:
    memory = told.create("/a.md", "one\n")
    told.delete(memory)
    told.redact(memory["memory_version_id"])
    assert "is redacted" in check_refusal(told.blame(memory), 400)["message"]
    check_refusal(told.blame({"id": ids.new(ids.MEMORY)}), 404)
