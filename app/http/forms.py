"""A multipart form that its route reads piece by piece: one file of any size, and short fields beside it."""

import os
import tempfile
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import IO, Any

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from app.contract.errors import InvalidRequest
from app.http.uploads import Upload
from app.storage.contents.disks import temporary_room

_IN_MEMORY = 8 * 1024 * 1024
_FIELD_BYTES = 4_096
_BOUNDARY_BYTES = 70
"""RFC 2046, 5.1.1."""
_SHOWN = 100


@dataclass(slots=True)
class Form:
    """The fields of a form, with the file in a temporary file that its owner closes. `with form:` closes it."""

    file: IO[bytes]
    file_name: str = ""
    """What the sender calls it: without directories, and not empty only if it was said."""
    fields: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> "Form":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def flag(self, name: str) -> bool:
        """A field that is true or false; without it, false.

        Raises:
            InvalidRequest: it is neither.

        """
        value = self.fields.get(name, "false")
        if value not in ("true", "false"):
            raise InvalidRequest(f"{name}: must be 'true' or 'false', not {value[:_SHOWN]!r}")
        return value == "true"


class _FormReader:
    """What the parser calls with each part of the body."""

    def __init__(self, form: Form, file: str, fields: Collection[str]) -> None:
        self._form = form
        self._file = file
        self._names = (file, *fields)
        self._seen: set[str] = set()
        self._header = self._value = b""
        self._name = ""
        self._data = bytearray()
        self._is_ended = False

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
            if self._name == self._file:
                self._form.file_name = os.path.basename(options.get(b"filename", b"").decode("utf-8", "replace"))
        self._header = self._value = b""

    def _headers_finished(self) -> None:
        if self._name not in self._names:
            raise InvalidRequest(
                f"{self._name[:_SHOWN]!r} is no field of this form; there are {', '.join(self._names)}"
            )
        if self._name in self._seen:
            raise InvalidRequest(f"{self._name}: was given more than once")
        self._seen.add(self._name)

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == self._file:
            with temporary_room("a file that is sent"):
                self._form.file.write(data[start:end])
            return
        self._data += data[start:end]
        if len(self._data) > _FIELD_BYTES:
            raise InvalidRequest(f"{self._name}: is longer than {_FIELD_BYTES:,} bytes")

    def _end_part(self) -> None:
        if self._name == self._file:
            return
        try:
            self._form.fields[self._name] = self._data.decode()
        except UnicodeDecodeError:
            raise InvalidRequest(f"{self._name}: must be UTF-8") from None

    def _end(self) -> None:
        self._is_ended = True

    def finish(self) -> None:
        if not self._is_ended:
            raise InvalidRequest("the request body ends before its last boundary")
        if self._file not in self._seen:
            raise InvalidRequest(f"{self._file}: is required")


def _boundary(content_type: str, file: str) -> bytes:
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise InvalidRequest(
            f"the request body must be multipart/form-data, with its boundary in content-type and the file in {file!r}"
        )
    if len(boundary) > _BOUNDARY_BYTES:
        raise InvalidRequest(
            f"content-type: the boundary has {len(boundary):,} bytes; at most {_BOUNDARY_BYTES} are allowed"
        )
    return boundary


async def read_form(upload: Upload, maximum: int, *, file: str, fields: Collection[str]) -> Form:
    """The form in a request body of at most `maximum` bytes: the required `file`, and any of `fields`, each once.

    Raises:
        InvalidRequest: it is no such form, or a field has more than 4,096 bytes.
        RequestTooLarge: it is larger.

    """
    boundary = _boundary(upload.content_type, file)
    form = Form(tempfile.SpooledTemporaryFile(_IN_MEMORY))  # noqa: SIM115 - its owner closes it
    try:
        reader = _FormReader(form, file, fields)
        try:
            parser = MultipartParser(boundary, reader.callbacks())
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
