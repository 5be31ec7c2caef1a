"""Every column of the database has its place in an erasure, or a reason why it needs none."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from sqlalchemy import LargeBinary, String

from app.erasure.columns import JSON_OBJECTS, NO_TEXT, SEARCHED_ONLY, is_in_column
from app.erasure.folding import Folded
from app.erasure.places import PLACES
from app.erasure.written import ERASED, blanked
from app.storage.rows.tables import metadata
from tests.storage.outside import Outside, outside
from tests.support.servers import Server

AN_ID = "memver_011ChEkFsAnnaTt2sxq3GkSm"
A_FULL_AGENT: dict[str, Any] = {
    "name": "Support",
    "model": "claude-opus-5-5",
    "description": "Answers",
    "system": "Be kind",
    "metadata": {"team": "green"},
    "mcp_servers": [{"type": "url", "name": "tickets", "url": "https://mcp.example.com"}],
    "tools": [
        {"type": "agent_toolset_20260401", "configs": [{"name": "bash", "enabled": False}]},
        {"type": "mcp_toolset", "mcp_server_name": "tickets"},
        {
            "type": "custom", "name": "look_up", "description": "Looks up",
            "input_schema": {"type": "object", "properties": {"who": {"type": "string"}}},
        },
    ],
    "skills": [{"type": "custom", "skill_id": "skill_1"}],
}  # fmt: skip


@pytest.fixture
def view(server: Server) -> Iterator[Outside]:
    with outside(server.environment) as view:
        yield view


def in_places() -> list[str]:
    return [column for place in PLACES for column in place.columns]


def test_every_column_that_can_hold_a_text_is_a_place_or_says_why_not() -> None:
    listed = [*in_places(), *SEARCHED_ONLY, *NO_TEXT]
    assert sorted(listed) == sorted(set(listed)), "one list each"
    held = {
        f"{table.name}.{column.name}"
        for table in metadata.sorted_tables
        for column in table.columns
        if isinstance(column.type, String | LargeBinary)
    }
    assert set(listed) == held
    assert all(reason.strip() for reason in (*NO_TEXT.values(), *SEARCHED_ONLY.values()))


def test_every_column_of_json_is_read_as_such() -> None:
    commented = {
        f"{table.name}.{column.name}"
        for table in metadata.sorted_tables
        for column in table.columns
        if "JSON" in (column.comment or "")
    }
    assert commented - set(NO_TEXT) == set(JSON_OBJECTS)


@pytest.mark.parametrize(
    ("column", "value", "is_found"),
    [
        ("memory_versions.actor_id", AN_ID, False),
        ("memory_versions.actor_id", "cli:anna", True),
        ("memories.path", f"/{AN_ID}", True),
        ("memories.path", AN_ID, True),
        ("session_resources.mount_path", "/mnt/memory/memstore-011chekfsannatt2sxq3gksm", False),
        ("session_resources.mount_path", "/mnt/memory/annas-notes", True),
        ("memory_stores.name", AN_ID, True),
        ("memory_stores.metadata", '{"who": "\\u0041nna"}', True),
        ("memory_stores.metadata", '{"anna": "x"}', True),
        ("memory_stores.metadata", f'{{"of": "{AN_ID}"}}', True),
        ("sessions.agent", f'{{"id": "{AN_ID}", "type": "anna"}}', False),
        ("sessions.agent", '{"system": "Ask Anna"}', True),
        ("sessions.agent", '{"anna": 1}', True),
        ("sessions.agent", '{"tools": [{"input_schema": {"type": "anna"}}]}', True),
    ],
)
def test_a_text_is_found_where_a_person_wrote_it_and_not_in_what_the_server_made(
    column: str, value: str, is_found: bool
) -> None:
    assert is_in_column(column, value, Folded("Anna")) is is_found


def test_what_is_left_after_an_erasure_is_not_found() -> None:
    for column in ("environments.name", "sessions.title", "session_resources.name", "api_keys.name"):
        for value in (ERASED, f"{ERASED} {AN_ID}", "Erased memory store"):
            assert not is_in_column(column, value, Folded("erased"))


def test_of_an_agent_and_an_environment_only_what_was_given_is_searched(
    client: anthropic.Anthropic, view: Outside
) -> None:
    """So no word of the API passes for a person's name, whatever the server completes."""
    agent = client.beta.agents.create(**A_FULL_AGENT)
    environment = client.beta.environments.create(
        name="columns", config={"type": "cloud", "networking": {"type": "limited", "allowed_hosts": ["a.example.com"]}}
    )
    session = client.beta.sessions.create(agent=agent.id, environment_id=environment.id)
    given = {
        "Support", "Answers", "Be kind", "team", "green", "tickets", "https://mcp.example.com", "look_up", "Looks up",
        "type", "object", "properties", "who", "string", "skill_1", "a.example.com",
    }  # fmt: skip
    for column, key, identifier in (
        ("agent_versions.definition", "agent_id", agent.id),
        ("environments.config", "id", environment.id),
        ("sessions.agent", "id", session.id),
    ):
        table, _, name = column.partition(".")
        ((value,),) = view.rows.execute(f"SELECT {name} FROM {table} WHERE {key} = '{identifier}'")
        assert texts_in(value) <= given, column


def texts_in(value: str) -> set[str]:
    """What a search looks at in a JSON text."""
    seen: set[str] = set()

    class Noting(Folded):
        def is_in(self, text: str) -> bool:
            seen.add(text)
            return False

    blanked(json.loads(value), Noting("x"))
    return seen
