"""Null in the bodies of updates: it is taken where the SDK's types have it, and clears what can be cleared."""

from typing import Any, get_args, get_type_hints
from uuid import uuid4

import anthropic
import pytest
from anthropic.types import beta as sdk
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store
from anthropic.types.beta import memory_stores as sdk_memories
from pydantic import BaseModel

from app.agents.wire import CreateAgent, UpdateAgent
from app.environments.wire import CreateEnvironment, UpdateEnvironment
from app.memories.wire import CreateMemory, UpdateMemory
from app.sessions.wire import CreateSession, UpdateSession
from app.stores.wire import CreateStore, UpdateStore
from tests.contract.conftest import SessionMaker

BODIES: list[tuple[type[Any], type[BaseModel]]] = [
    (sdk.MemoryStoreCreateParams, CreateStore),
    (sdk.MemoryStoreUpdateParams, UpdateStore),
    (sdk_memories.MemoryCreateParams, CreateMemory),
    (sdk_memories.MemoryUpdateParams, UpdateMemory),
    (sdk.AgentCreateParams, CreateAgent),
    (sdk.AgentUpdateParams, UpdateAgent),
    (sdk.EnvironmentCreateParams, CreateEnvironment),
    (sdk.EnvironmentUpdateParams, UpdateEnvironment),
    (sdk.SessionCreateParams, CreateSession),
    (sdk.SessionUpdateParams, UpdateSession),
]
REFUSED = {(CreateMemory, "content")}
"""The vendor refuses it there, whatever the type says."""


@pytest.mark.parametrize(("theirs", "ours"), BODIES, ids=[ours.__name__ for _, ours in BODIES])
def test_null_is_taken_wherever_the_sdks_types_have_it(theirs: type[Any], ours: type[BaseModel]) -> None:
    nullable = {name for name, hint in get_type_hints(theirs).items() if type(None) in get_args(hint)}
    taken = {
        name
        for name, field in ours.model_fields.items()
        if field.annotation is type(None) or type(None) in get_args(field.annotation)
    }
    assert nullable - taken == {name for body, name in REFUSED if body is ours}


def test_a_stores_description_is_cleared_by_null_and_by_the_empty_text(
    client: anthropic.Anthropic, store: Store
) -> None:
    stores = client.beta.memory_stores
    for nothing in (None, ""):
        assert stores.update(store.id, description="about cats").description == "about cats"
        assert stores.update(store.id, name="cats").description == "about cats"
        assert stores.update(store.id, description=nothing).description == ""
        assert stores.retrieve(store.id).description == ""
    kept = stores.update(store.id, name=None, metadata=None)
    assert (kept.name, kept.metadata) == ("cats", store.metadata)
    once = stores.update(store.id, description=None)
    assert once.updated_at == kept.updated_at, "nothing changed"


def test_an_environments_description_is_cleared_by_null(client: anthropic.Anthropic) -> None:
    environments = client.beta.environments
    made = environments.create(name=f"nulls {uuid4()}", description="where", config={"type": "cloud"})
    assert environments.update(made.id, name=None, config=None).description == "where"
    assert environments.update(made.id, description=None).description is None
    assert environments.retrieve(made.id).config == made.config


def test_what_an_agent_can_lose_is_cleared_by_null(client: anthropic.Anthropic) -> None:
    agents = client.beta.agents
    full: dict[str, Any] = {
        "description": "helps",
        "system": "Help.",
        "tools": [{"type": "agent_toolset_20260401"}],
        "skills": [{"type": "anthropic", "skill_id": "xlsx"}],
    }
    made = agents.create(name="Support", model="claude-opus-5-5", metadata={"team": "a"}, **full)
    for field, empty in (("description", None), ("system", None), ("tools", []), ("skills", []), ("mcp_servers", [])):
        change: dict[str, Any] = {field: None}
        assert getattr(agents.update(made.id, **change), field) == empty
    assert agents.update(made.id, metadata=None).metadata == {"team": "a"}


@pytest.fixture
def titled(open_session: SessionMaker, store: Store) -> str:
    return open_session(store.id, title="Refund", metadata={"a": "1"}).id


def test_a_sessions_title_is_cleared_by_null(client: anthropic.Anthropic, titled: str) -> None:
    sessions = client.beta.sessions
    assert sessions.update(titled, metadata=None).title == "Refund"
    changed = sessions.update(titled, title=None)
    assert (changed.title, changed.metadata) == (None, {"a": "1"})
