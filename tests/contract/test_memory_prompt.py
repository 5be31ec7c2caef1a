"""The note for an agent's system prompt: what it says of each attached store (part 5.4)."""

from typing import Any

import anthropic
import httpx2
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from app.sessions.prompt import memory_prompt
from tests.contract.conftest import SessionMaker

NOTES = {
    "name": "Team Notes",
    "mount_path": "/mnt/memory/team-notes",
    "access": "read_write",
    "description": "What the team learned.",
    "instructions": None,
}
RULES = {
    "name": "House Rules",
    "mount_path": "/mnt/memory/house-rules",
    "access": "read_only",
    "description": "",
    "instructions": "Follow these.\nAll of them.",
}


def block_of(text: str, name: str) -> list[str]:
    """The lines of one store: its item, and what is indented below it."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"- {name}"))
    rest = lines[start + 1 :]
    end = next((number for number, line in enumerate(rest) if not line.startswith("  ")), len(rest))
    return lines[start : start + 1 + end]


def test_each_store_has_its_name_path_access_description_and_instructions() -> None:
    text = memory_prompt([NOTES, RULES])
    assert text.startswith("# Memory stores\n")
    assert block_of(text, "Team Notes") == [
        "- Team Notes: /mnt/memory/team-notes/ (read-write)",
        "  What the team learned.",
    ]
    assert block_of(text, "House Rules") == [
        "- House Rules: /mnt/memory/house-rules/ (read-only)",
        "  Instructions: Follow these.",
        "  All of them.",
    ]
    assert text.index("Team Notes") < text.index("House Rules")


def test_the_agent_is_told_to_look_first_and_to_save_what_it_learned() -> None:
    text = memory_prompt([NOTES, RULES])
    assert "Before you start" in text
    assert "save it" in text


def test_an_agent_that_can_only_read_is_not_told_to_save() -> None:
    text = memory_prompt([RULES])
    assert "Before you start" in text
    assert "save it" not in text
    assert "can't be written" in text


def test_without_stores_there_is_nothing_to_say() -> None:
    assert memory_prompt([]) == ""


def test_the_same_stores_give_the_same_text() -> None:
    assert memory_prompt([NOTES, RULES]) == memory_prompt([dict(NOTES), dict(RULES)])


def test_the_route_gives_the_note_of_the_session(
    open_session: SessionMaker, client: anthropic.Anthropic, http: httpx2.Client, store: Store
) -> None:
    other: dict[str, Any] = {"type": "memory_store", "memory_store_id": store.id, "access": "read_only"}
    session = open_session({**other, "instructions": "Read it."})
    url = f"/v1/sessions/{session.id}/memory_prompt"
    answer = http.get(url)
    assert answer.status_code == 200
    note = answer.json()
    assert note == {
        "type": "memory_prompt",
        "session_id": session.id,
        "text": memory_prompt([resource.model_dump() for resource in session.resources]),
    }
    assert "Instructions: Read it." in note["text"]
    # It tells of the store as it was attached, whatever became of it.
    client.beta.memory_stores.update(store.id, name="renamed")
    assert http.get(url).json() == note
    assert http.get(f"/v1/sessions/{open_session().id}/memory_prompt").json()["text"] == ""
