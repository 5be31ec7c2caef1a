"""Shapes of an agent's smaller parts (contract, 5.5), as they are answered and as they are given."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

_Closed = ConfigDict(extra="forbid", strict=True)
_Level = Literal["low", "medium", "high", "xhigh", "max"]
_Speed = Literal["standard", "fast"]

# Answers


class EffortLow(TypedDict):
    """How hard the model works."""

    type: Literal["low"]


class EffortMedium(TypedDict):
    """How hard the model works."""

    type: Literal["medium"]


class EffortHigh(TypedDict):
    """How hard the model works; the default."""

    type: Literal["high"]


class EffortXhigh(TypedDict):
    """How hard the model works."""

    type: Literal["xhigh"]


class EffortMax(TypedDict):
    """How hard the model works."""

    type: Literal["max"]


class Model(TypedDict):
    """The model and how it is used."""

    id: str
    effort: Annotated[EffortLow | EffortMedium | EffortHigh | EffortXhigh | EffortMax, Field(discriminator="type")]
    inference_geo: str | None
    speed: _Speed


class McpServer(TypedDict):
    """An MCP server."""

    name: str
    type: Literal["url"]
    url: str


class AnthropicSkill(TypedDict):
    """A skill of the vendor."""

    skill_id: str
    type: Literal["anthropic"]
    version: str


class CustomSkill(TypedDict):
    """A skill of the caller's own."""

    skill_id: str
    type: Literal["custom"]
    version: str


class AwsRole(TypedDict):
    """A role that runs act in."""

    role_arn: str
    type: Literal["aws_role"]


class ServiceAccount(TypedDict):
    """Runs act as nobody in particular; the default."""

    type: Literal["service_account"]


Skill = Annotated[AnthropicSkill | CustomSkill, Field(discriminator="type")]
Identity = Annotated[AwsRole | ServiceAccount, Field(discriminator="type")]

# Requests

ModelId = Annotated[str, Field(min_length=1, description="ID of a model; any, since none is called here.")]


class EffortParams(BaseModel):
    """How hard the model works."""

    model_config = _Closed

    type: _Level


class ModelParams(BaseModel):
    """The model and how it is used. An update replaces it as a whole, but for `effort`."""

    model_config = _Closed

    id: ModelId
    effort: _Level | EffortParams | None = Field(None, description="`high` if it was never given.")
    inference_geo: str | None = Field(None, description="Where the model runs.")
    speed: _Speed | None = Field(None, description="`standard` if not given.")


class McpServerParams(BaseModel):
    """An MCP server."""

    model_config = _Closed

    name: str = Field(min_length=1, max_length=255, description="Unique; an `mcp_toolset` in `tools` must name it.")
    type: Literal["url"]
    url: str = Field(min_length=1, description="Where the server listens.")


class AnthropicSkillParams(BaseModel):
    """A skill of the vendor."""

    model_config = _Closed

    skill_id: str = Field(min_length=1)
    type: Literal["anthropic"]
    version: str | None = Field(None, description="`latest` if not given.")


class CustomSkillParams(BaseModel):
    """A skill of the caller's own."""

    model_config = _Closed

    skill_id: str = Field(min_length=1)
    type: Literal["custom"]
    version: str | None = Field(None, description="`latest` if not given.")


class AwsRoleParams(BaseModel):
    """A role that runs act in."""

    model_config = _Closed

    role_arn: str = Field(min_length=1, max_length=2_048)
    type: Literal["aws_role"]


class ServiceAccountParams(BaseModel):
    """Runs act as nobody in particular."""

    model_config = _Closed

    type: Literal["service_account"]


SkillParams = Annotated[AnthropicSkillParams | CustomSkillParams, Field(discriminator="type")]
IdentityParams = Annotated[AwsRoleParams | ServiceAccountParams, Field(discriminator="type")]
