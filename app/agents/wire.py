"""Shapes of agents on the wire (contract, 5.5)."""

import json
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, with_config
from typing_extensions import TypedDict

from app.agents import definition, parts, tool_params, tools
from app.agents.multiagent import (
    Advisor,
    AdvisorMember,
    Disabled,
    InlineAgents,
    Multiagent,
    MultiagentParams,
)
from app.contract import clock
from app.contract.limits import (
    AGENT_DESCRIPTION_MAX_CHARACTERS,
    AGENT_MCP_SERVERS_MAX,
    AGENT_NAME_MAX_CHARACTERS,
    AGENT_SYSTEM_MAX_CHARACTERS,
    AGENT_TOOLS_MAX,
    AGENT_VERSION_MAX,
)
from app.http.documents import NO_CONTROLS, NO_NULLS, AgentIdText, Omittable, Timestamp, shape
from app.http.metadata import Metadata, MetadataPatch
from app.http.numbers import JSON_INTEGER
from app.http.pages import WHOLE_NUMBER, CreatedRange, Flag, PageQuery, QueryModel
from app.storage.rows.database import Row

_Closed = ConfigDict(extra="forbid", strict=True)
_Name = Annotated[str, shape(minLength=1, maxLength=AGENT_NAME_MAX_CHARACTERS, pattern=NO_CONTROLS)]
_Description = Annotated[str, shape(maxLength=AGENT_DESCRIPTION_MAX_CHARACTERS, pattern=NO_NULLS)]
_System = Annotated[str, shape(maxLength=AGENT_SYSTEM_MAX_CHARACTERS, pattern=NO_NULLS)]
AgentVersion = Annotated[int, Field(ge=1, le=AGENT_VERSION_MAX)]

# Answers


class _Definition(TypedDict):
    id: AgentIdText
    type: Literal["agent"]
    name: _Name
    version: AgentVersion
    description: _Description | None
    system: _System | None
    model: parts.Model
    tools: list[tools.Tool]
    mcp_servers: list[parts.McpServer]
    skills: list[parts.Skill]
    execution_identity: parts.Identity


@with_config(
    ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "agent_011ChEGEtPoE7tx6byHfPSXa",
                    "type": "agent",
                    "name": "Support",
                    "version": 2,
                    "description": "Answers customers.",
                    "system": "Answer customers.",
                    "model": {
                        "id": "claude-opus-5-5",
                        "effort": {"type": "high"},
                        "inference_geo": "us",
                        "speed": "standard",
                    },
                    "tools": [
                        {
                            "type": "agent_toolset_20260401",
                            "configs": [],
                            "default_config": {"enabled": True, "permission_policy": {"type": "always_allow"}},
                        }
                    ],
                    "mcp_servers": [],
                    "skills": [],
                    "multiagent": {
                        "type": "coordinator",
                        "agents": [{"type": "agent", "id": "agent_011ChEGEtPoE7tx6byHfwJet", "version": 1}],
                    },
                    "execution_identity": {"type": "service_account"},
                    "metadata": {"team": "support"},
                    "created_at": "2026-11-20T09:00:00.000000Z",
                    "updated_at": "2026-11-20T09:30:00.000000Z",
                    "archived_at": "2026-11-20T10:00:00.000000Z",
                }
            ]
        }
    )
)
class Agent(_Definition):
    """An agent as one of its versions has it. Every key is always there."""

    multiagent: Multiagent | None
    metadata: Metadata
    created_at: Timestamp
    updated_at: Timestamp
    archived_at: Timestamp | None


class ThreadAgent(_Definition):
    """An agent that a session's agent can start."""


class SessionCoordinator(TypedDict):
    """Agents that the session's agent can start threads of."""

    type: Literal["coordinator"]
    agents: list[Annotated[ThreadAgent | Advisor, Field(discriminator="type")]]


class SessionSpawningEnabled(TypedDict):
    """Agents can be started: saved ones, and perhaps such as are made up on the way."""

    type: Literal["enabled"]
    inline_agents: InlineAgents
    predefined_agents: list[ThreadAgent]


class SessionMultiagent20261001(TypedDict):
    """Three members, each enabled or not."""

    type: Literal["multiagent_20261001"]
    advisor: AdvisorMember
    subagents: Annotated[SessionSpawningEnabled | Disabled, Field(discriminator="type")]
    workflows: Annotated[SessionSpawningEnabled | Disabled, Field(discriminator="type")]


class SessionAgent(_Definition):
    """An agent as it was when a session was made with it, the agents it can start included."""

    multiagent: Annotated[SessionCoordinator | SessionMultiagent20261001, Field(discriminator="type")] | None


# Requests


ModelChoice = parts.ModelId | parts.ModelParams
Tools = Annotated[list[tool_params.ToolParams], Field(max_length=AGENT_TOOLS_MAX)]
McpServers = Annotated[list[parts.McpServerParams], Field(max_length=AGENT_MCP_SERVERS_MAX)]
Skills = list[parts.SkillParams]
SystemPrompt = _System

_NAME = "1 to 256 characters without control characters; need not be unique."
_DESCRIPTION = "At most 2,048 characters."
_SYSTEM = "The system prompt, at most 100,000 characters."
_MCP_SERVERS = "At most 20, each used by an `mcp_toolset` in `tools`."


class CreateAgent(BaseModel):
    """Body of a create."""

    model_config = _Closed

    name: _Name = Field(description=_NAME, examples=["Support"])
    model: ModelChoice = Field(description="The model's ID, or an object.", examples=["claude-opus-5-5"])
    description: _Description | None = Field(None, description=_DESCRIPTION)
    system: _System | None = Field(None, description=_SYSTEM)
    tools: Tools = Field(
        default_factory=list, description="At most 256.", examples=[[{"type": "agent_toolset_20260401"}]]
    )
    mcp_servers: McpServers = Field(default_factory=list, description=_MCP_SERVERS)
    skills: Skills = Field(default_factory=list, description="Skills.")
    multiagent: MultiagentParams | None = Field(None, description="Other agents that this one can start.")
    execution_identity: parts.IdentityParams | None = Field(None, description="Whom runs act as.")
    metadata: Metadata = Field(
        default_factory=dict,
        description="At most 16 pairs for your own use; keys of 1 to 64 characters, values of at most 512.",
    )


class UpdateAgent(BaseModel):
    """Body of an update. An absent field keeps its value; `name` and `model` can't be removed."""

    model_config = _Closed

    version: Annotated[AgentVersion, JSON_INTEGER] = Field(
        default_factory=int, description="The newest version, as you know it: if it is not, 409. None: whatever it is."
    )
    name: _Name = Field(default_factory=str, description=_NAME)
    model: ModelChoice = Field(default_factory=str, description="The model's ID, or an object.")
    description: _Description | None = Field(None, description=f'{_DESCRIPTION} Null or `""` removes it.')
    system: _System | None = Field(None, description=f'{_SYSTEM} Null or `""` removes it.')
    tools: Tools | None = Field(None, description="All of them, at most 256; null removes them.")
    mcp_servers: McpServers | None = Field(None, description=f"All of them; null removes them. {_MCP_SERVERS}")
    skills: Skills | None = Field(None, description="All of them; null removes them.")
    multiagent: MultiagentParams | None = Field(
        None, description="Other agents that this one can start; null removes it."
    )
    execution_identity: parts.IdentityParams | None = Field(None, description="Whom runs act as; null is the default.")
    metadata: MetadataPatch | None = Field(
        None,
        description="A merge patch: a string sets a key, null removes it, an absent key stays.",
        examples=[{"team": "sales"}],
    )


class ListAgents(PageQuery, CreatedRange):
    """Query of a listing."""

    include_archived: Flag = Field(False, description="Whether archived agents are also listed.")


class RetrieveAgent(QueryModel):
    """Query of a retrieval."""

    version: Omittable[Annotated[int, Field(ge=1, le=AGENT_VERSION_MAX), WHOLE_NUMBER]] = Field(
        None, description="The version to show; the newest if not given."
    )


# Rows

_FIELDS = (
    "name",
    "description",
    "system",
    "model",
    "tools",
    "mcp_servers",
    "skills",
    "execution_identity",
)
Entry = dict[str, Any]
"""One of those that a `multiagent` names."""


def agent(row: Row) -> Agent:
    """A row as the wire shows it."""
    whole = json.loads(row["definition"])
    myself = {"type": "agent", "id": row["id"], "version": row["version"]}
    shown: Any = {
        **_fields(row, whole),
        "multiagent": _with_agents(whole["multiagent"], lambda entry: myself if entry["type"] == "self" else entry),
        "metadata": whole["metadata"],
        "created_at": clock.rfc3339(row["created_at"]),
        "updated_at": clock.rfc3339(row["updated_at"]),
        "archived_at": clock.rfc3339_or_none(row["archived_at"]),
    }
    agent: Agent = shown
    return agent


def snapshot(row: Row, overrides: definition.Given | None = None) -> SessionAgent:
    """A row of `Agents.retrieve` as a session's `agent` object: complete in itself, to be stored as it is.

    overrides: `model`, `system`, `tools`, `mcp_servers`, `skills` that replace the agent's in this session, as a
    request has them (those that were not sent are absent).

    Raises:
        InvalidRequest: an override breaks its rule.

    """
    whole = definition.overridden(json.loads(row["definition"]), overrides or {})

    def member(entry: Entry) -> Entry:
        if entry["type"] == "advisor":
            return entry
        if entry["type"] == "self":
            return _fields(row, whole)
        other = row["roster"][entry["id"], entry["version"]]
        return _fields(other, json.loads(other["definition"]))

    shown: Any = {**_fields(row, whole), "multiagent": _with_agents(whole["multiagent"], member)}
    agent: SessionAgent = shown
    return agent


def _fields(row: Row, whole: definition.Definition) -> dict[str, Any]:
    """What every form of an agent shows."""
    shown = {name: whole[name] for name in _FIELDS}
    return {"id": row["id"], "type": "agent", "version": row["version"], **shown}


def _with_agents(multiagent: dict[str, Any] | None, show: Callable[[Entry], Entry]) -> dict[str, Any] | None:
    """The `multiagent` of a definition with each entry of its lists as `show` gives it."""
    for entries in definition.rosters(multiagent):
        entries[:] = [show(entry) for entry in entries]
    return multiagent
