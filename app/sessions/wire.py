"""Shapes of sessions on the wire (contract, 5.1 to 5.4)."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag
from typing_extensions import TypedDict

from app.agents.wire import AgentVersion, McpServers, ModelChoice, SessionAgent, Skills, SystemPrompt, Tools
from app.contract import clock
from app.contract.actors import READ_WRITE
from app.contract.limits import (
    DESCRIPTION_MAX_CHARACTERS,
    INSTRUCTIONS_MAX_CHARACTERS,
    NAME_MAX_CHARACTERS,
    RESOURCES_PAGE_LIMIT_MAX,
    SESSION_MAX_STORES,
    TITLE_MAX_CHARACTERS,
)
from app.contract.slugs import MOUNT_ROOT
from app.http.documents import (
    NO_NULLS,
    AgentIdText,
    EnvironmentIdText,
    Omittable,
    SessionIdText,
    StoreIdText,
    Timestamp,
    shape,
)
from app.http.metadata import Metadata, MetadataPatch
from app.http.numbers import JSON_INTEGER
from app.http.pages import CURSOR_PATTERN, WHOLE_NUMBER, CreatedRange, Flag, Moment, PageQuery, QueryModel
from app.sessions.attachments import Attachment
from app.sessions.service import Session
from app.storage.rows.database import Row

Access = Literal["read_write", "read_only"]
Status = Literal["rescheduling", "running", "idle", "terminated"]

_CLOSED = ConfigDict(extra="forbid", strict=True)
_Title = Annotated[str, shape(maxLength=TITLE_MAX_CHARACTERS, pattern=NO_NULLS)]
_Instructions = Annotated[str, shape(maxLength=INSTRUCTIONS_MAX_CHARACTERS, pattern=NO_NULLS)]
_Count = Annotated[int, shape(minimum=0)]
_Seconds = Annotated[float, shape(minimum=0)]

# Answers


class MemoryStoreResource(TypedDict):
    """An attached memory store. `name`, `description` and `mount_path` are as they were when it was attached."""

    type: Literal["memory_store"]
    memory_store_id: StoreIdText
    access: Access
    name: Annotated[str, shape(minLength=1, maxLength=NAME_MAX_CHARACTERS)]
    description: Annotated[str, shape(maxLength=DESCRIPTION_MAX_CHARACTERS)]
    instructions: _Instructions | None
    mount_path: Annotated[str, shape(pattern=f"^{MOUNT_ROOT}/[a-z0-9-]+$")]


class Stats(TypedDict):
    """Times, in seconds. Nothing runs a session here, so it is never active."""

    active_seconds: _Seconds
    duration_seconds: _Seconds


class CacheCreation(TypedDict):
    """Tokens written to the prompt cache."""

    ephemeral_1h_input_tokens: _Count
    ephemeral_5m_input_tokens: _Count


class ListCost(TypedDict):
    """An amount of money."""

    amount: str
    currency: Literal["USD"]


class ServerToolUse(TypedDict):
    """Calls of tools that a server ran."""

    web_fetch_requests: _Count
    web_search_requests: _Count


class Usage(TypedDict):
    """What the session's models used: nothing, since none runs here."""

    input_tokens: _Count
    output_tokens: _Count
    cache_read_input_tokens: _Count
    cache_creation: CacheCreation
    active_seconds: _Seconds
    list_cost: ListCost
    server_tool_use: ServerToolUse


class SessionObject(TypedDict):
    """A session. It is `idle` until it is archived, and `terminated` from then on."""

    id: SessionIdText
    type: Literal["session"]
    status: Status
    title: _Title | None
    agent: SessionAgent
    environment_id: EnvironmentIdText
    metadata: Metadata
    resources: Annotated[list[MemoryStoreResource], shape(maxItems=SESSION_MAX_STORES)]
    vault_ids: Annotated[list[str], shape(maxItems=0)]
    outcome_evaluations: Annotated[list[str], shape(maxItems=0)]
    budget: None
    deployment_id: None
    stats: Stats
    usage: Usage
    created_at: Timestamp
    updated_at: Timestamp
    archived_at: Timestamp | None


class DeletedSession(TypedDict):
    """What is left of a deleted session."""

    id: SessionIdText
    type: Literal["session_deleted"]


class SessionsPage(TypedDict):
    """One page of sessions. `next_page` is null on the last one, `prev_page` on the first."""

    data: Annotated[list[SessionObject], shape(maxItems=100)]
    next_page: Annotated[str, shape(pattern=CURSOR_PATTERN)] | None
    prev_page: Annotated[str, shape(pattern=CURSOR_PATTERN)] | None


class MemoryPrompt(TypedDict):
    """The note about its memory stores for an agent's system prompt; the text is empty without any."""

    type: Literal["memory_prompt"]
    session_id: SessionIdText
    text: str


# Requests


class CreateSessionAgent(BaseModel):
    """One version of an agent."""

    model_config = _CLOSED

    type: Literal["agent"]
    id: AgentIdText
    version: Annotated[AgentVersion, JSON_INTEGER] = Field(default_factory=int, description="The newest if not given.")


class CreateSessionAgentWithOverrides(BaseModel):
    """One version of an agent, with fields that are others in this session. An absent field is the agent's own."""

    model_config = _CLOSED

    type: Literal["agent_with_overrides"]
    id: AgentIdText
    version: Annotated[AgentVersion, JSON_INTEGER] = Field(default_factory=int, description="The newest if not given.")
    model: ModelChoice = Field(default_factory=str, description="Another model; how hard it works stays the agent's.")
    system: SystemPrompt | None = Field(None, description="Another system prompt; null for none.")
    tools: Tools = Field(default_factory=list, description="All tools; empty for none.")
    mcp_servers: McpServers = Field(default_factory=list, description="All MCP servers; empty for none.")
    skills: Skills = Field(default_factory=list, description="All skills; empty for none.")

    def overrides(self) -> dict[str, Any]:
        """The fields that were sent."""
        return self.model_dump(exclude_unset=True, exclude={"type", "id", "version"})


def _kind_of_agent(value: Any) -> str:
    if isinstance(value, str):
        return "id"
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return kind if isinstance(kind, str) else ""


_Agent = Annotated[
    Annotated[AgentIdText, Tag("id")]
    | Annotated[CreateSessionAgent, Tag("agent")]
    | Annotated[CreateSessionAgentWithOverrides, Tag("agent_with_overrides")],
    Discriminator(
        _kind_of_agent,
        custom_error_type="agent",
        custom_error_message="must be an agent's ID, or an object whose type is 'agent' or 'agent_with_overrides'",
    ),
]


class CreateSessionResource(BaseModel):
    """A memory store to attach."""

    model_config = _CLOSED

    type: Literal["memory_store"]
    memory_store_id: StoreIdText
    access: Access | None = Field(None, description="`read_write` if not given.")
    instructions: _Instructions | None = Field(
        None, description="How the agent should use the store; at most 4,096 characters."
    )


class CreateSession(BaseModel):
    """Body of a create."""

    model_config = _CLOSED

    agent: _Agent = Field(
        description="An agent's ID, which stands for its newest version, or more exactly an object.",
        examples=["agent_011ChEGEtPoE7tx6byHfPSXa"],
    )
    environment_id: EnvironmentIdText = Field(
        description="Where the session's tools run.", examples=["env_011ChEGEtPoE7tx6byHfwJet"]
    )
    title: _Title | None = Field(None, description="A title for people.", examples=["Refund of order 1093"])
    metadata: Metadata = Field(
        default_factory=dict,
        description="At most 16 pairs for your own use; keys of 1 to 64 characters, values of at most 512.",
    )
    resources: Annotated[list[CreateSessionResource], shape(maxItems=SESSION_MAX_STORES)] = Field(
        default_factory=list,
        description="Memory stores to attach, each once, at most 8. No other resources here.",
        examples=[[{"type": "memory_store", "memory_store_id": "memstore_011ChEGEtPoE7tx6byHfPSXa"}]],
    )
    vault_ids: Annotated[list[str], Field(max_length=0)] = Field(
        default_factory=list, description="There are no vaults here: empty, if it is given."
    )
    initial_events: Annotated[list[dict[str, Any]], Field(max_length=0)] = Field(
        default_factory=list, description="Nothing runs a session here: empty, if it is given."
    )
    budget: None = Field(None, description="Nothing here costs anything: null, if it is given.")


class UpdateSessionAgent(BaseModel):
    """What a session can change of its agent; the agent itself stays as it is. An absent field keeps its value."""

    model_config = _CLOSED

    tools: Tools = Field(default_factory=list, description="All tools; empty for none.")
    mcp_servers: McpServers = Field(default_factory=list, description="All MCP servers; empty for none.")


class UpdateSession(BaseModel):
    """Body of an update. An absent field keeps its value."""

    model_config = _CLOSED

    title: _Title | None = Field(None, description="The new title; null removes it.")
    agent: UpdateSessionAgent = Field(default_factory=UpdateSessionAgent, description="Other tools or MCP servers.")
    metadata: MetadataPatch | None = Field(
        None,
        description="A merge patch: a string sets a key, null removes it, an absent key stays. "
        "At most 16 pairs may result.",
        examples=[{"team": "sales"}],
    )
    budget: None = Field(None, description="Nothing here costs anything: null, if it is given.")


class ListSessions(PageQuery, CreatedRange):
    """Query of a listing; filters are combined with AND."""

    agent_id: Omittable[str] = Field(None, description="Only sessions of this agent.")
    agent_version: Omittable[Annotated[AgentVersion, WHOLE_NUMBER]] = Field(
        None, description="Only sessions of this version of the agent in `agent_id`; ignored without that."
    )
    created_at_gt: Omittable[Moment] = Field(
        None, alias="created_at[gt]", description="Created after this time (RFC 3339)."
    )
    created_at_lt: Omittable[Moment] = Field(
        None, alias="created_at[lt]", description="Created before this time (RFC 3339)."
    )
    deployment_id: Omittable[str] = Field(None, description="There are no deployments here: finds nothing.")
    include_archived: Flag = Field(False, description="Whether archived sessions are also listed.")
    memory_store_id: Omittable[str] = Field(None, description="Only sessions that have attached this memory store.")
    order: Literal["asc", "desc"] = Field("desc", description="By time of creation; `desc` is newest first.")
    statuses: Omittable[list[Status]] = Field(
        None, alias="statuses[]", description="Only sessions in one of these states; may be repeated."
    )


class ListResources(QueryModel):
    """Query of a listing."""

    limit: Omittable[Annotated[int, Field(ge=1, le=RESOURCES_PAGE_LIMIT_MAX), WHOLE_NUMBER]] = Field(
        None, description="Items per page; all if not given."
    )
    page: Omittable[str] = Field(
        None,
        description="The `next_page` of the page before.",
        json_schema_extra={"pattern": CURSOR_PATTERN},
    )


class AddResource(BaseModel):
    """Body of a request to attach something to a session that is there. Nothing can be."""

    model_config = ConfigDict(extra="allow")

    type: str


# From rows


def attachments(resources: list[CreateSessionResource]) -> list[Attachment]:
    """The stores that a request wants attached."""
    return [Attachment(each.memory_store_id, each.access or READ_WRITE, each.instructions) for each in resources]


def resource(row: Row) -> MemoryStoreResource:
    """An attached store as the wire shows it."""
    return {
        "type": "memory_store",
        "memory_store_id": row["store_id"],
        "access": row["access"],
        "name": row["name"],
        "description": row["description"],
        "instructions": row["instructions"],
        "mount_path": row["mount_path"],
    }


def session(found: Session) -> SessionObject:
    """A session as the wire shows it."""
    row = found.row
    ended = row["archived_at"]
    duration = ((clock.now() if ended is None else ended) - row["created_at"]) / clock.MICROSECONDS_PER_SECOND
    return {
        "id": row["id"],
        "type": "session",
        "status": "idle" if ended is None else "terminated",
        "title": row["title"],
        "agent": json.loads(row["agent"]),
        "environment_id": row["environment_id"],
        "metadata": json.loads(row["metadata"]),
        "resources": [resource(each) for each in found.resources],
        "vault_ids": [],
        "outcome_evaluations": [],
        "budget": None,
        "deployment_id": None,
        "stats": {"active_seconds": 0.0, "duration_seconds": max(0.0, duration)},
        "usage": {
            "input_tokens": 0,
            "output_tokens": 0,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_1h_input_tokens": 0, "ephemeral_5m_input_tokens": 0},
            "active_seconds": 0.0,
            "list_cost": {"amount": "0", "currency": "USD"},
            "server_tool_use": {"web_fetch_requests": 0, "web_search_requests": 0},
        },
        "created_at": clock.rfc3339(row["created_at"]),
        "updated_at": clock.rfc3339(row["updated_at"]),
        "archived_at": clock.rfc3339_or_none(ended),
    }
