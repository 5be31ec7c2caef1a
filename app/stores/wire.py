"""Shapes of memory stores on the wire (contract, 1)."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from app.contract import clock
from app.contract.limits import DESCRIPTION_MAX_CHARACTERS, METADATA_MAX_PAIRS, NAME_MAX_CHARACTERS
from app.http.pages import CreatedRange, Flag, PageQuery
from app.storage.database import Row


class MemoryStore(TypedDict):
    """A memory store. Every key is always there; only `archived_at` can be null."""

    id: str
    type: Literal["memory_store"]
    name: str
    description: str
    metadata: dict[str, str]
    created_at: str
    updated_at: str
    archived_at: str | None


class DeletedMemoryStore(TypedDict):
    """What is left of a deleted store."""

    id: str
    type: Literal["memory_store_deleted"]


_Name = Annotated[str, Field(json_schema_extra={"minLength": 1, "maxLength": NAME_MAX_CHARACTERS})]
_Description = Annotated[str, Field(json_schema_extra={"maxLength": DESCRIPTION_MAX_CHARACTERS})]
_METADATA: dict[str, Any] = {"maxProperties": METADATA_MAX_PAIRS}


class CreateStore(BaseModel):
    """Body of a create."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: _Name = Field(description="1 to 255 characters without control characters; need not be unique.")
    description: _Description = Field("", description="At most 1,024 characters, shown to the agent.")
    metadata: dict[str, str] = Field(
        default_factory=dict,
        description="At most 16 pairs for your own use; keys of 1 to 64 characters, values of at most 512.",
        json_schema_extra=_METADATA,
    )


class UpdateStore(BaseModel):
    """Body of an update. An absent or null field keeps its value."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: _Name | None = Field(None, description="The new name.")
    description: _Description | None = Field(None, description='The new description; `""` clears it.')
    metadata: dict[str, str | None] | None = Field(
        None, description="A merge patch: a string sets a key, null removes it, an absent key stays."
    )


class ListStores(PageQuery, CreatedRange):
    """Query of a listing."""

    include_archived: Flag = Field(False, description="Whether archived stores are listed too.")


def store(row: Row) -> MemoryStore:
    """A row as the wire shows it."""
    return {
        "id": row["id"],
        "type": "memory_store",
        "name": row["name"],
        "description": row["description"],
        "metadata": json.loads(row["metadata"]),
        "created_at": clock.rfc3339(row["created_at"]),
        "updated_at": clock.rfc3339(row["updated_at"]),
        "archived_at": clock.rfc3339_or_none(row["archived_at"]),
    }
