"""Reading the history of an export: versions in their order, each with a content that is there."""

from collections.abc import Iterable, Iterator, Mapping

from app.contract.clock import micros, micros_or_none
from app.contract.errors import InvalidRequest
from app.transfer.archives.bounds import LINE_BYTES
from app.transfer.archives.manifest import OPERATION_CODES, VersionOfExport, read_actor, read_version
from app.transfer.archives.spool import Spooled
from app.transfer.plan import NewVersion, Rejection


def read_history(
    pieces: Iterable[bytes], contents: Mapping[bytes, Spooled], most: int
) -> tuple[list[NewVersion], list[Rejection]]:
    """The versions of `versions.jsonl`, at most `most`, and those whose content is not among `contents`.

    Raises:
        InvalidRequest: a line can't be used, the numbers do not rise, or there are more.

    """
    versions, refused, last = [], [], 0
    for number, line in enumerate(_lines(pieces), 1):
        if number > most:
            raise InvalidRequest(
                f"the export has more than {most:,} versions, which is the most that an import takes "
                "(MEMSTORE_MAX_IMPORT_VERSIONS); export it without its history, or raise the limit"
            )
        version = read_version(line, number)
        if version.seq <= last:
            raise InvalidRequest(f"versions.jsonl, line {number:,}: seq is {version.seq}, after {last}")
        last = version.seq
        content = None if version.sha256 is None else contents.get(bytes.fromhex(version.sha256))
        if version.sha256 is not None and (content is None or content.size != version.size):
            refused.append(Rejection(version.path or "", f"the content of version {version.version_id!r} is not there"))
            continue
        versions.append(as_new(version, content))
    return versions, refused


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    rest, number = b"", 0
    for piece in pieces:
        lines = (rest + piece).split(b"\n")
        rest = lines.pop()
        for line in [*lines, rest]:
            number += 1
            if len(line) > LINE_BYTES:
                raise InvalidRequest(f"versions.jsonl, line {number:,}: is longer than {LINE_BYTES:,} bytes")
        number -= 1
        yield from lines
    if rest:
        yield rest


def as_new(version: VersionOfExport, content: Spooled | None) -> NewVersion:
    """A version of an export as it is going to be written."""
    actor_type, actor_id = read_actor(version.created_by, "created_by")
    redacted_by_type, redacted_by_id = read_actor(version.redacted_by, "redacted_by")
    return NewVersion(
        origin=version.memory_id,
        origin_version=version.version_id,
        operation=OPERATION_CODES[version.operation],
        path=version.path,
        content=content,
        created_at=micros(version.created_at),
        actor_type=actor_type,
        actor_id=actor_id,
        redacted_at=micros_or_none(version.redacted_at),
        redacted_by_type=redacted_by_type,
        redacted_by_id=redacted_by_id,
    )
