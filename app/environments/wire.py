"""Shapes of environments on the wire (contract, 5.5)."""

import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, with_config
from typing_extensions import TypedDict

from app.contract import clock
from app.contract.limits import ENVIRONMENT_DESCRIPTION_MAX_CHARACTERS, NAME_MAX_CHARACTERS
from app.http.documents import NO_CONTROLS, NO_NULLS, EnvironmentIdText, Timestamp, shape
from app.http.metadata import Metadata, MetadataPatch
from app.http.pages import Flag, PageQuery
from app.storage.rows.database import Row

_Name = Annotated[str, shape(minLength=1, maxLength=NAME_MAX_CHARACTERS, pattern=NO_CONTROLS)]
_Description = Annotated[str, shape(maxLength=ENVIRONMENT_DESCRIPTION_MAX_CHARACTERS, pattern=NO_NULLS)]
_Scope = Literal["organization"]
_Closed = ConfigDict(extra="forbid", strict=True)

# Answers


class UnrestrictedNetwork(TypedDict):
    """Everything outside can be reached."""

    type: Literal["unrestricted"]


class LimitedNetwork(TypedDict):
    """Only what is named can be reached."""

    type: Literal["limited"]
    allow_mcp_servers: bool
    allow_package_managers: bool
    allowed_hosts: list[str]


class Packages(TypedDict):
    """What to install, by package manager."""

    type: Literal["packages"]
    apt: list[str]
    cargo: list[str]
    gem: list[str]
    go: list[str]
    npm: list[str]
    pip: list[str]


class CloudConfig(TypedDict):
    """A container with a network and packages."""

    type: Literal["cloud", "anthropic_cloud"]
    networking: Annotated[UnrestrictedNetwork | LimitedNetwork, Field(discriminator="type")]
    packages: Packages


class SelfHostedConfig(TypedDict):
    """Machines of the caller's own."""

    type: Literal["self_hosted"]


@with_config(
    ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "env_011ChEGEtPoE7tx6byHfPSXa",
                    "type": "environment",
                    "name": "Support desk",
                    "description": "Where the support agents work.",
                    "config": {"type": "self_hosted"},
                    "metadata": {"team": "support"},
                    "scope": "organization",
                    "created_at": "2026-11-20T09:00:00.000000Z",
                    "updated_at": "2026-11-20T09:00:00.000000Z",
                    "archived_at": "2026-11-20T10:00:00.000000Z",
                }
            ]
        }
    )
)
class Environment(TypedDict):
    """An environment. Every key is always there; `description` and `archived_at` can be null."""

    id: EnvironmentIdText
    type: Literal["environment"]
    name: _Name
    description: _Description | None
    config: Annotated[CloudConfig | SelfHostedConfig, Field(discriminator="type")]
    metadata: Metadata
    scope: _Scope
    created_at: Timestamp
    updated_at: Timestamp
    archived_at: Timestamp | None


class DeletedEnvironment(TypedDict):
    """What is left of a deleted environment."""

    id: EnvironmentIdText
    type: Literal["environment_deleted"]


# Requests


class UnrestrictedNetworkParams(BaseModel):
    """Everything outside can be reached; the default."""

    model_config = _Closed

    type: Literal["unrestricted"]


class LimitedNetworkParams(BaseModel):
    """Only what is named can be reached. On update an absent or null field keeps its value."""

    model_config = _Closed

    type: Literal["limited"]
    allow_mcp_servers: bool | None = Field(None, description="Whether the agent's MCP servers can be reached.")
    allow_package_managers: bool | None = Field(
        None, description="Whether public package registries can be reached; needed where packages are given."
    )
    allowed_hosts: list[str] | None = Field(None, description="Hosts that can be reached.")


class PackagesParams(BaseModel):
    """What to install, by package manager, with versions in its own notation. A null list keeps its value."""

    model_config = _Closed

    type: Literal["packages"] = "packages"
    apt: list[str] | None = None
    cargo: list[str] | None = None
    gem: list[str] | None = None
    go: list[str] | None = None
    npm: list[str] | None = None
    pip: list[str] | None = None


class CloudConfigParams(BaseModel):
    """A container. On update an absent or null field keeps its value."""

    model_config = _Closed

    type: Literal["cloud", "anthropic_cloud"] = Field(
        description="Both mean the same; the answer has the one that was sent."
    )
    networking: Annotated[UnrestrictedNetworkParams | LimitedNetworkParams, Field(discriminator="type")] | None = None
    packages: PackagesParams | None = Field(
        None, description="With a limited network, packages need `allow_package_managers`."
    )


class SelfHostedConfigParams(BaseModel):
    """Machines of the caller's own."""

    model_config = _Closed

    type: Literal["self_hosted"]


_ConfigParams = Annotated[CloudConfigParams | SelfHostedConfigParams, Field(discriminator="type")]


class CreateEnvironment(BaseModel):
    """Body of a create."""

    model_config = _Closed

    name: _Name = Field(
        description="1 to 255 characters without control characters; unique in the workspace among those not archived.",
        examples=["Support desk"],
    )
    config: _ConfigParams | None = Field(None, description="A cloud container with all defaults if not given.")
    description: _Description | None = Field(None, description="At most 2,048 characters.")
    metadata: Metadata = Field(
        default_factory=dict,
        description="At most 16 pairs for your own use; keys of 1 to 64 characters, values of at most 512.",
    )
    scope: _Scope | None = Field(None, description="`organization`; there is no other here.")


class UpdateEnvironment(BaseModel):
    """Body of an update. An absent field keeps its value."""

    model_config = _Closed

    name: _Name | None = Field(None, description="The new name; null keeps the old one.")
    config: _ConfigParams | None = Field(None, description="Its type can't change; null keeps the old one.")
    description: _Description | None = Field(None, description="The new description; null removes it.")
    metadata: MetadataPatch = Field(
        default_factory=dict,
        description='A merge patch: a string sets a key, null or `""` removes it, an absent key stays.',
        examples=[{"team": "sales"}],
    )
    scope: _Scope | None = Field(None, description="`organization`; there is no other here.")


class ListEnvironments(PageQuery):
    """Query of a listing."""

    include_archived: Flag = Field(False, description="Whether archived environments are also listed.")


def environment(row: Row) -> Environment:
    """A row as the wire shows it."""
    return {
        "id": row["id"],
        "type": "environment",
        "name": row["name"],
        "description": row["description"],
        "config": json.loads(row["config"]),
        "metadata": json.loads(row["metadata"]),
        "scope": "organization",
        "created_at": clock.rfc3339(row["created_at"]),
        "updated_at": clock.rfc3339(row["updated_at"]),
        "archived_at": clock.rfc3339_or_none(row["archived_at"]),
    }
