"""Shapes of an agent's `multiagent` (contract, 5.5), as it is answered and as it is given."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from app.contract.limits import AGENT_ROSTER_MAX, AGENT_VERSION_MAX
from app.http.documents import AgentIdText
from app.http.numbers import JSON_INTEGER

_Closed = ConfigDict(extra="forbid", strict=True)

# Answers


class AgentReference(TypedDict):
    """One version of an agent."""

    id: AgentIdText
    type: Literal["agent"]
    version: int


class Advisor(TypedDict):
    """A model that can be asked for advice."""

    model: str
    type: Literal["advisor"]


class Coordinator(TypedDict):
    """Agents that this one can start threads of."""

    type: Literal["coordinator"]
    agents: list[Annotated[AgentReference | Advisor, Field(discriminator="type")]]


class Disabled(TypedDict):
    """Not there."""

    type: Literal["disabled"]


class AdvisorEnabled(TypedDict):
    """A model that can be asked for advice."""

    type: Literal["enabled"]
    model: str


class InlineAgentsEnabled(TypedDict):
    """Agents can be made up on the way."""

    type: Literal["enabled"]


InlineAgents = Annotated[InlineAgentsEnabled | Disabled, Field(discriminator="type")]


class SpawningEnabled(TypedDict):
    """Agents can be started: saved ones, and perhaps such as are made up on the way."""

    type: Literal["enabled"]
    inline_agents: InlineAgents
    predefined_agents: list[AgentReference]


AdvisorMember = Annotated[AdvisorEnabled | Disabled, Field(discriminator="type")]


class Multiagent20261001(TypedDict):
    """Three members, each enabled or not."""

    type: Literal["multiagent_20261001"]
    advisor: AdvisorMember
    subagents: Annotated[SpawningEnabled | Disabled, Field(discriminator="type")]
    workflows: Annotated[SpawningEnabled | Disabled, Field(discriminator="type")]


Multiagent = Annotated[Coordinator | Multiagent20261001, Field(discriminator="type")]

# Requests


class AgentReferenceParams(BaseModel):
    """An agent, and which version of it; the newest if not given."""

    model_config = _Closed

    type: Literal["agent"]
    id: AgentIdText = Field(description="ID of the agent.")
    version: Annotated[int, Field(ge=1, le=AGENT_VERSION_MAX), JSON_INTEGER] = Field(
        default_factory=int, description="The newest if not given."
    )


class SelfReferenceParams(BaseModel):
    """The agent that this is given to."""

    model_config = _Closed

    type: Literal["self"]


class AdvisorParams(BaseModel):
    """A model that can be asked for advice; one at most."""

    model_config = _Closed

    type: Literal["advisor"]
    model: str = Field(min_length=1, description="ID of the model.")


class CoordinatorParams(BaseModel):
    """Agents that this one can start threads of."""

    model_config = _Closed

    type: Literal["coordinator"]
    agents: list[
        AgentIdText | Annotated[AgentReferenceParams | SelfReferenceParams | AdvisorParams, Field(discriminator="type")]
    ] = Field(
        min_length=1,
        max_length=AGENT_ROSTER_MAX,
        description="Each agent once: its ID, or a reference. They must be there, not be archived, and have no "
        "`multiagent` of their own.",
    )


class DisabledParams(BaseModel):
    """Not there."""

    model_config = _Closed

    type: Literal["disabled"]


class AdvisorEnabledParams(BaseModel):
    """A model that can be asked for advice."""

    model_config = _Closed

    type: Literal["enabled"]
    model: str = Field(min_length=1, description="ID of the model.")


class InlineAgentsEnabledParams(BaseModel):
    """Agents can be made up on the way."""

    model_config = _Closed

    type: Literal["enabled"]


class SpawningEnabledParams(BaseModel):
    """Agents can be started: saved ones, and perhaps such as are made up on the way."""

    model_config = _Closed

    type: Literal["enabled"]
    inline_agents: Annotated[InlineAgentsEnabledParams | DisabledParams, Field(discriminator="type")] | None = Field(
        None, description="Enabled if null. If disabled, an agent must be named."
    )
    predefined_agents: (
        list[AgentIdText | Annotated[AgentReferenceParams | SelfReferenceParams, Field(discriminator="type")]] | None
    ) = Field(None, max_length=AGENT_ROSTER_MAX, description="As in a coordinator's `agents`; none if null.")


_SpawningParams = Annotated[SpawningEnabledParams | DisabledParams, Field(discriminator="type")]


class Multiagent20261001Params(BaseModel):
    """Three members, each enabled or not.

    An update merges it with one that is there, level by level: what is absent keeps its value, and null is the default.
    """

    model_config = _Closed

    type: Literal["multiagent_20261001"]
    advisor: Annotated[AdvisorEnabledParams | DisabledParams, Field(discriminator="type")] | None = Field(
        None, description="Disabled if null."
    )
    subagents: _SpawningParams | None = Field(None, description="Enabled if null.")
    workflows: _SpawningParams | None = Field(None, description="Enabled if null.")


MultiagentParams = Annotated[CoordinatorParams | Multiagent20261001Params, Field(discriminator="type")]
