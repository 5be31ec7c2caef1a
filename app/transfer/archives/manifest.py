"""The manifest of an export and the lines of its history: making them and reading them back."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from app.contract import actors, clock, paths, text
from app.contract.errors import InvalidRequest
from app.contract.limits import CONTENT_MAX_BYTES
from app.storage.rows.database import Row
from app.storage.rows.tables import CREATED, DELETED, MODIFIED
from app.transfer.archives.bounds import LINE_BYTES
from app.transfer.archives.json_stream import JsonStream
from app.transfer.archives.layout import FORMAT, FORMAT_VERSION, MANIFEST, VERSIONS

OPERATIONS = {CREATED: "created", MODIFIED: "modified", DELETED: "deleted"}
OPERATION_CODES = {name: code for code, name in OPERATIONS.items()}

_ACTOR_ID_CHARACTERS = 255
_ID_CHARACTERS = 128
_FILE_CHARACTERS = 2_048
_MEMBERS = 64
_PLACE_CHARACTERS = 200
_STORE_CHARACTERS = 65_536
"""Of the store's fields: 16 pairs of metadata and a description, every character escaped."""
_FUTURE_MICROSECONDS = clock.MICROSECONDS_PER_DAY
"""How far ahead another machine's clock may be."""


def _time(value: str) -> str:
    if not 0 <= clock.microseconds(datetime.fromisoformat(value)) <= clock.now() + _FUTURE_MICROSECONDS:
        raise ValueError("must be a time from 1970 to now")
    return value


def _path(value: str) -> str:
    try:
        return paths.check(value)
    except InvalidRequest as error:
        raise ValueError(error.message) from None


Time = Annotated[str, AfterValidator(_time)]
Path = Annotated[str, AfterValidator(_path)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Size = Annotated[int, Field(ge=0, le=CONTENT_MAX_BYTES)]
Id = Annotated[str, Field(max_length=_ID_CHARACTERS)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class StoreOfExport(_Strict):
    """What the store was called."""

    id: Id
    name: str
    description: str
    metadata: dict[str, str]


class MemoryOfExport(_Strict):
    """One memory, and the file of the export that is its content."""

    path: Path
    file: Annotated[str, Field(max_length=_FILE_CHARACTERS)]
    sha256: Digest
    size: Size
    id: Id
    version_id: Id
    created_at: Time
    updated_at: Time


class HistoryOfExport(_Strict):
    """Where the versions are, and that they are whole."""

    file: Literal["versions.jsonl"] = VERSIONS
    count: int
    sha256: Digest


class Manifest(_Strict):
    """Everything that is in an export."""

    format: Literal["memstore-export"] = FORMAT
    format_version: Literal[1] = FORMAT_VERSION
    exported_at: Time
    memory_store: StoreOfExport
    seq: int
    memories: list[MemoryOfExport]
    history: HistoryOfExport | None = None

    def text(self) -> bytes:
        """As it stands in the file."""
        return orjson.dumps(self.model_dump(), option=orjson.OPT_INDENT_2) + b"\n"


class VersionOfExport(_Strict):
    """One version. `path` is null only when it is redacted, `sha256` and `size` then and for a deletion."""

    seq: int
    operation: Literal["created", "modified", "deleted"]
    path: Path | None
    sha256: Digest | None
    size: Size | None
    memory_id: Id
    version_id: Id
    created_at: Time
    created_by: dict[str, str] | None
    redacted_at: Time | None
    redacted_by: dict[str, str] | None


def version_line(row: Row) -> bytes:
    """The line of a version's row."""
    sha256 = row["content_sha256"]
    line = {
        "seq": row["seq"],
        "operation": OPERATIONS[row["operation"]],
        "path": row["path"],
        "sha256": None if sha256 is None else bytes(sha256).hex(),
        "size": row["content_size"],
        "memory_id": row["memory_id"],
        "version_id": row["id"],
        "created_at": clock.rfc3339(row["created_at"]),
        "created_by": actors.wire(row["actor_type"], row["actor_id"]),
        "redacted_at": clock.rfc3339_or_none(row["redacted_at"]),
        "redacted_by": actors.wire(row["redacted_by_type"], row["redacted_by_id"]),
    }
    return orjson.dumps(line) + b"\n"


def why(error: ValidationError) -> str:
    """What is wrong, and where; nothing of the input but its keys, which are shown as they can be printed."""
    problem = error.errors(include_input=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    if not place.isprintable() or len(place) > _PLACE_CHARACTERS:
        place = repr(place[:_PLACE_CHARACTERS])
    return f"{place}: {problem['msg'].removeprefix('Value error, ')}" if place else problem["msg"]


def read_manifest(pieces: Iterable[bytes], most: int) -> Manifest:
    """The manifest in a file of UTF-8, memory by memory; at most `most` of them.

    Raises:
        InvalidRequest: it is none, of a format that this program does not know, or of a larger store.

    """
    stream = JsonStream(pieces, MANIFEST)
    memories: list[MemoryOfExport] = []
    fields: dict[str, Any] = {"memories": None}
    try:
        for name in stream.members(_MEMBERS):
            if name != "memories":
                fields[name] = stream.value(_STORE_CHARACTERS)
                continue
            fields[name] = []
            for item in stream.items(LINE_BYTES):
                memories.append(MemoryOfExport.model_validate(item))
                if len(memories) > most:
                    raise InvalidRequest(f"the export holds more than {most:,} memories, which no store may hold")
        stream.end()
        manifest = Manifest.model_validate(fields)
    except ValidationError as error:
        raise InvalidRequest(f"manifest.json can't be used: {why(error)}") from None
    manifest.memories = memories
    return manifest


def read_version(line: bytes, number: int) -> VersionOfExport:
    """The version on line `number`.

    Raises:
        InvalidRequest: it is none, or its parts do not fit together.

    """
    try:
        version = VersionOfExport.model_validate_json(line)
    except ValidationError as error:
        raise InvalidRequest(f"versions.jsonl, line {number:,}: {why(error)}") from None
    if not fits(version):
        raise InvalidRequest(f"versions.jsonl, line {number:,}: path and content do not fit the operation")
    for author in (version.created_by, version.redacted_by):
        read_actor(author, f"versions.jsonl, line {number:,}")
    return version


def fits(version: VersionOfExport) -> bool:
    """Whether path and content are there and not there as the operation wants it."""
    if version.redacted_at is not None:
        return version.path is None and version.sha256 is None and version.size is None
    has_content = version.sha256 is not None and version.size is not None
    return version.path is not None and has_content == (version.operation != "deleted")


def read_actor(author: dict[str, str] | None, place: str) -> tuple[str | None, str | None]:
    """The type and the ID of an author as the wire shows it."""
    if author is None:
        return None, None
    field = actors.ID_FIELDS.get(author.get("type", ""))
    if field is None or not 1 <= len(author.get(field, "")) <= _ACTOR_ID_CHARACTERS or "\0" in author[field]:
        raise InvalidRequest(f"{place}: {author!r} is no author; its type must be one of {sorted(actors.ID_FIELDS)}")
    return author["type"], author[field]


def check_store(store: StoreOfExport) -> dict[str, Any]:
    """The store's own fields, by the rules of a new one."""
    return {
        "name": text.check_name(store.name),
        "description": text.check_description(store.description),
        "metadata": text.check_metadata(store.metadata),
    }
