"""Shapes of memory stores on the wire (contract, 1)."""

import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, with_config
from typing_extensions import TypedDict

from app.contract import clock
from app.contract.limits import DESCRIPTION_MAX_CHARACTERS, HOLD_REASON_MAX_CHARACTERS, NAME_MAX_CHARACTERS
from app.http.documents import NO_CONTROLS, NO_NULLS, StoreIdText, Timestamp, shape
from app.http.metadata import Metadata, MetadataPatch
from app.http.pages import CreatedRange, Flag, PageQuery
from app.storage.rows.database import Row

_Name = Annotated[str, shape(minLength=1, maxLength=NAME_MAX_CHARACTERS, pattern=NO_CONTROLS)]
_Description = Annotated[str, shape(maxLength=DESCRIPTION_MAX_CHARACTERS, pattern=NO_NULLS)]


@with_config(
    ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "memstore_011ChEGEtPoE7tx6byHfPSXa",
                    "type": "memory_store",
                    "name": "Customer preferences",
                    "description": "What each customer likes.",
                    "metadata": {"team": "support"},
                    "created_at": "2026-11-20T09:00:00.000000Z",
                    "updated_at": "2026-11-20T09:30:00.000000Z",
                    "archived_at": "2026-11-20T10:00:00.000000Z",
                }
            ]
        }
    )
)
class MemoryStore(TypedDict):
    """A memory store. Every key is always there; only `archived_at` can be null."""

    id: StoreIdText
    type: Literal["memory_store"]
    name: _Name
    description: _Description
    metadata: Metadata
    created_at: Timestamp
    updated_at: Timestamp
    archived_at: Timestamp | None


class DeletedMemoryStore(TypedDict):
    """What is left of a deleted store."""

    id: StoreIdText
    type: Literal["memory_store_deleted"]


class MemoryStoreHold(TypedDict):
    """A store's legal hold. Ours: the vendor has none."""

    type: Literal["memory_store_hold"]
    memory_store_id: StoreIdText
    held_at: Timestamp
    reason: str | None


class ReleasedHold(TypedDict):
    """What is left of a hold."""

    type: Literal["memory_store_hold_released"]
    memory_store_id: StoreIdText


class PlaceHold(BaseModel):
    """Body of a hold."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reason: Annotated[str, shape(maxLength=HOLD_REASON_MAX_CHARACTERS, pattern=NO_NULLS)] | None = Field(
        None,
        description="At most 1,024 characters for those who look after holds; not in refusals, nor in the audit log.",
        examples=["Case 2026-17"],
    )


class CreateStore(BaseModel):
    """Body of a create."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: _Name = Field(
        description="1 to 255 characters without control characters; need not be unique.",
        examples=["Customer preferences"],
    )
    description: _Description = Field(
        "", description="At most 1,024 characters, shown to the agent.", examples=["What each customer likes."]
    )
    metadata: Metadata = Field(
        default_factory=dict,
        description="At most 16 pairs for your own use; keys of 1 to 64 characters, values of at most 512; "
        "U+0000 in neither.",
        examples=[{"team": "support"}],
    )


class UpdateStore(BaseModel):
    """Body of an update. An absent field keeps its value."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: _Name | None = Field(None, description="The new name; null keeps the old one.")
    description: _Description | None = Field(None, description='The new description; null or `""` clears it.')
    metadata: MetadataPatch | None = Field(
        None,
        description="A merge patch: a string sets a key, null removes it, an absent key stays. "
        "At most 16 pairs may result.",
        examples=[{"team": "sales"}],
    )


class ListStores(PageQuery, CreatedRange):
    """Query of a listing."""

    include_archived: Flag = Field(False, description="Whether archived stores are also listed.")


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


def hold(row: Row) -> MemoryStoreHold:
    """A hold's row as the wire shows it."""
    return {
        "type": "memory_store_hold",
        "memory_store_id": row["id"],
        "held_at": clock.rfc3339(row["held_at"]),
        "reason": row["hold_reason"],
    }
