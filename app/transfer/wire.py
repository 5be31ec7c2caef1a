"""Shapes of exports and imports on the wire; ours, the vendor has none."""

import os
import tempfile
from dataclasses import dataclass, field
from typing import IO, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from typing_extensions import TypedDict

from app.contract.errors import InvalidRequest
from app.http.documents import StoreIdText
from app.http.pages import Flag
from app.http.uploads import Upload

_IN_MEMORY = 8 * 1024 * 1024
_FIELD_BYTES = 4_096
_FIELDS = ("file", "name", "into", "partial")


class ExportQuery(BaseModel):
    """Query of an export."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["tar", "tar.gz", "tar.zst", "zip"] = Field("tar", description="The kind of archive.")
    history: Flag = Field(False, description="Whether every version comes, too.")


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
                },
            }
        }
    },
}
"""The request body, as the OpenAPI document shows it."""


@dataclass(slots=True)
class ImportForm:
    """The fields of an import, with the archive in a temporary file that its owner closes."""

    file: IO[bytes]
    file_name: str = ""
    fields: dict[str, str] = field(default_factory=dict)

    @property
    def partial(self) -> bool:
        """Whether what is good goes in though something is refused."""
        value = self.fields.get("partial", "false")
        if value not in ("true", "false"):
            raise InvalidRequest(f"partial: must be 'true' or 'false', not {value!r}")
        return value == "true"


class _FormReader:
    """What the parser calls with each part of the body."""

    def __init__(self, form: ImportForm) -> None:
        self._form = form
        self._seen: set[str] = set()
        self._header = self._value = b""
        self._name = ""
        self._data = bytearray()
        self.is_ended = False

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin, "on_part_data": self._part_data, "on_part_end": self._end_part,
            "on_header_field": self._header_field, "on_header_value": self._header_value,
            "on_header_end": self._header_end, "on_headers_finished": self._headers_finished, "on_end": self._end,
        }  # fmt: skip

    def _begin(self) -> None:
        self._header = self._value = b""
        self._name, self._data = "", bytearray()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
            if self._name == "file":
                self._form.file_name = os.path.basename(options.get(b"filename", b"").decode("utf-8", "replace"))
        self._header = self._value = b""

    def _headers_finished(self) -> None:
        if self._name not in _FIELDS:
            raise InvalidRequest(f"{self._name}: is no field of an import; there are {', '.join(_FIELDS)}")
        if self._name in self._seen:
            raise InvalidRequest(f"{self._name}: was given more than once")
        self._seen.add(self._name)

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == "file":
            self._form.file.write(data[start:end])
            return
        self._data += data[start:end]
        if len(self._data) > _FIELD_BYTES:
            raise InvalidRequest(f"{self._name}: is longer than {_FIELD_BYTES:,} bytes")

    def _end_part(self) -> None:
        if self._name == "file":
            return
        try:
            self._form.fields[self._name] = self._data.decode()
        except UnicodeDecodeError:
            raise InvalidRequest(f"{self._name}: must be UTF-8") from None

    def _end(self) -> None:
        self.is_ended = True

    def finish(self) -> None:
        if not self.is_ended:
            raise InvalidRequest("the request body ends before its last boundary")
        if "file" not in self._seen:
            raise InvalidRequest("file: is required: the archive to import")


async def read_form(upload: Upload, maximum: int) -> ImportForm:
    """The form in a request body of at most `maximum` bytes.

    Raises:
        InvalidRequest: it is no such form.
        RequestTooLarge: it is larger.

    """
    kind, options = parse_options_header(upload.content_type)
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise InvalidRequest("the request body must be multipart/form-data with the archive in the field 'file'")
    form = ImportForm(tempfile.SpooledTemporaryFile(_IN_MEMORY))  # noqa: SIM115 - its owner closes it
    try:
        reader = _FormReader(form)
        parser = MultipartParser(options[b"boundary"], reader.callbacks())
        try:
            async for chunk in upload.chunks(maximum):
                parser.write(chunk)
            parser.finalize()
        except FormParserError as error:
            raise InvalidRequest(f"the request body is no valid multipart/form-data: {error}") from None
        reader.finish()
    except BaseException:
        form.file.close()
        raise
    return form
