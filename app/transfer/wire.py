"""Shapes of exports and imports on the wire; ours, the vendor has none."""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from app.http.documents import StoreIdText
from app.http.pages import Flag

FILE: Final = "file"
FIELDS: Final = ("name", "into", "partial", "name_encoding")
"""Of the form of an import."""


class ExportQuery(BaseModel):
    """Query of an export."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["tar", "tar.gz", "tar.zst", "zip"] = Field("tar", description="The kind of archive.")
    history: Flag = Field(False, description="Whether every version comes as well.")


class SkippedFile(TypedDict):
    """A file that was not imported."""

    path: str
    reason: str


class ImportedStore(TypedDict):
    """What became of an import. `memory_store_id` is null where nothing was imported because files were refused."""

    memory_store_id: StoreIdText | None
    created: int
    skipped: list[SkippedFile]


FORM: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {
                        "type": "string",
                        "format": "binary",
                        "description": "An export, or any .tar, .tar.gz, .tar.zst or .zip of texts.",
                    },
                    "name": {"type": "string", "description": "Name of the new store; else the export's own."},
                    "into": {"type": "string", "description": "ID of a store that gets the memories instead."},
                    "partial": {
                        "type": "string",
                        "enum": ["true", "false"],
                        "default": "false",
                        "description": "Import what is good though something is refused.",
                    },
                    "name_encoding": {
                        "type": "string",
                        "examples": ["cp932"],
                        "description": "What file names are whose bytes are not UTF-8; without it, those are refused.",
                    },
                },
            }
        }
    },
}
"""The request body, as the OpenAPI document shows it."""
