"""From the files of a source to the plan of an import: what each file is, and what is wrong with it.

Two kinds of sources. An *export* of this program has `export.json` and is held to its manifest: every file, every
digest. Anything else is *foreign*: a directory of Markdown, a vault, an agent's memory folder. There, what other
tools keep beside their texts is skipped by convention, and everything that can't be a memory is refused.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from app.contract import paths
from app.contract.clock import micros
from app.contract.errors import InvalidRequest
from app.contract.limits import CONTENT_MAX_BYTES
from app.transfer.archives import layout
from app.transfer.archives.bounds import LINE_BYTES, OWN_FILE_BYTES, Bounds
from app.transfer.archives.entries import DIRECTORY, FILE, Entry
from app.transfer.archives.manifest import Manifest, check_store, read_manifest
from app.transfer.archives.names import UNKNOWN
from app.transfer.archives.spool import Spool, Spooled
from app.transfer.archives.versions import read_history
from app.transfer.plan import NewMemory, Plan, Rejection, refuse_clashes

_OWN_FILES = (layout.HEADER, layout.MANIFEST, layout.VERSIONS)
_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
_ATTACHMENTS = frozenset(
    {
        *("png", "jpg", "jpeg", "gif", "bmp", "webp", "avif", "heic", "ico", "tif", "tiff", "psd", "pdf", "epub"),
        *("mp3", "m4a", "wav", "ogg", "flac", "aac", "mp4", "mov", "mkv", "webm", "avi"),
        *("zip", "gz", "tgz", "bz2", "xz", "zst", "7z", "rar", "tar", "dmg", "iso"),
        *("doc", "docx", "xls", "xlsx", "ppt", "pptx", "odt", "ods", "odp", "ttf", "otf", "woff", "woff2"),
        *("sqlite", "db", "pyc", "so", "dll", "exe", "bin"),
    }
)


@dataclass(frozen=True, slots=True)
class _Received:
    """One regular file: its content in the spool, or None when it is too large for any use."""

    name: str
    size: int
    content: Spooled | None


def plan_of(entries: Iterable[Entry], spool: Spool, *, default_name: str, bounds: Bounds | None = None) -> Plan:
    """Read a source to its end. `bounds`: the same as its reader's.

    Raises:
        InvalidRequest: the source as a whole can't be used.

    """
    bounds = bounds or Bounds()
    plan = Plan(name=default_name)
    received = list(_receive(entries, spool, plan, bounds))
    root = _root_of_export(received, spool)
    if root is None:
        _plan_foreign(received, spool, plan, bounds)
    else:
        # macOS decomposes names when it packs what was unpacked.
        files = {unicodedata.normalize("NFC", file.name.removeprefix(root)): file for file in received}
        _plan_export(files, spool, plan, bounds)
    return plan


def _receive(entries: Iterable[Entry], spool: Spool, plan: Plan, bounds: Bounds) -> Iterable[_Received]:
    own = {layout.MANIFEST: (bounds.memories + 1) * LINE_BYTES, layout.VERSIONS: (bounds.versions + 1) * LINE_BYTES}
    for entry in entries:
        if entry.kind is DIRECTORY:
            continue
        shown, name = _printable(entry.name), _plain(entry.name)
        if reason := _unsafe(entry.name):
            plan.refused.append(Rejection(shown, reason))
        elif not name.startswith(f"{layout.MEMORIES}/") and (reason := _convention(name)):
            plan.skipped.append(Rejection(shown, reason))
        elif entry.kind is not FILE:
            plan.refused.append(Rejection(shown, f"is a {entry.kind}, which can't be a memory"))
        else:
            # An export is at the root or in one folder.
            folder, _, last = name.rpartition("/")
            most = CONTENT_MAX_BYTES if "/" in folder else own.get(last, CONTENT_MAX_BYTES)
            content = spool.put_pieces(entry.pieces(), most)
            yield _Received(name, max(entry.size, most + 1) if content is None else content.size, content)


def _printable(name: str) -> str:
    """A name as it can be shown, also if it is not UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _plain(name: str) -> str:
    """Without the segments that stay where they are: `./a/./b` is `a/b`."""
    return "/".join(segment for segment in name.split("/") if segment != ".")


def _unsafe(name: str) -> str | None:
    """Why no file of this name is taken from anybody."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return UNKNOWN
    if name.startswith(("/", "\\")) or (name[1:3] in (":\\", ":/") and name[:1].isalpha()):
        return "has an absolute name; names must be relative"
    if ".." in name.split("/") or ".." in name.split("\\"):
        return "has a name that leads outside, with '..'"
    return None


def _convention(name: str) -> str | None:
    """Why a foreign file is left out without a fault."""
    for segment in name.split("/"):
        if segment.startswith("."):
            return f"{segment!r} is hidden: it belongs to a tool, not to the texts"
        if segment.lower() in _SYSTEM_FILES:
            return f"{segment!r} belongs to an operating system"
    return None


def _root_of_export(received: list[_Received], spool: Spool) -> str | None:
    """What stands before the files of an export, which may be in one folder; None: it is no export."""
    for file in received:
        root, _, last = file.name.rpartition("/")
        if last == layout.HEADER and "/" not in root and _is_header(file, spool):
            return f"{root}/" if root else ""
    return None


def _is_header(file: _Received, spool: Spool) -> bool:
    """Whether an `export.json` is that of an export. Other tools' files of this name are files as any other."""
    if file.content is None or file.content.size > OWN_FILE_BYTES:
        return False
    try:
        header: Any = orjson.loads(spool.read(file.content))
    except orjson.JSONDecodeError:
        return False
    return isinstance(header, dict) and header.get("format") == layout.FORMAT


# Foreign sources


def _plan_foreign(received: list[_Received], spool: Spool, plan: Plan, bounds: Bounds) -> None:
    inside = f"{layout.MEMORIES}/"
    root = inside if received and all(file.name.startswith(inside) for file in received) else ""
    found = []
    for file in received:
        relative = file.name.removeprefix(root)
        path = "/" + unicodedata.normalize("NFC", relative)
        if reason := _convention(relative):
            plan.skipped.append(Rejection(path, reason))
        elif reason := _not_text(file, spool):
            is_attachment = file.name.rpartition(".")[2].lower() in _ATTACHMENTS
            (plan.skipped if is_attachment else plan.refused).append(
                Rejection(path, "is an attachment, not a text" if is_attachment else reason)
            )
        elif reason := _bad_path(path):
            plan.refused.append(Rejection(path, reason))
        else:
            assert file.content is not None
            found.append(NewMemory(path, file.content))
    if len(found) > bounds.memories:
        raise InvalidRequest(f"there are {len(found):,} texts; a store holds at most {bounds.memories:,} memories")
    _add(plan, found)


def _not_text(file: _Received, spool: Spool) -> str | None:
    if file.content is None or file.content.size > CONTENT_MAX_BYTES:
        return f"is {file.size:,} bytes large; a memory holds at most {CONTENT_MAX_BYTES:,} bytes"
    data = spool.read(file.content)
    if b"\0" in data:
        return "is no text: it holds the byte 0"
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return f"is not UTF-8 text, at byte {error.start:,}"
    return None


def _bad_path(path: str) -> str | None:
    try:
        paths.check(path)
    except InvalidRequest as error:
        return error.message
    return None


def _add(plan: Plan, found: list[NewMemory]) -> None:
    clashing = {id(memory): reason for memory, reason in refuse_clashes(found, lambda each: each.path, lambda _: False)}
    for memory in found:
        if reason := clashing.get(id(memory)):
            plan.refused.append(Rejection(memory.path, reason))
        else:
            plan.memories.append(memory)


# Exports


def _plan_export(files: dict[str, _Received], spool: Spool, plan: Plan, bounds: Bounds) -> None:
    data = _own(files, layout.MANIFEST)
    if data is None:
        raise InvalidRequest("the export has no manifest.json: it was cut off before its end")
    manifest = read_manifest(spool.pieces(data), bounds.memories)
    fields = check_store(manifest.memory_store)
    plan.name, plan.description, plan.metadata = fields["name"], fields["description"], fields["metadata"]
    found = []
    for memory in manifest.memories:
        content, reason = _listed(files, memory.file, memory.sha256, spool)
        if content is None:
            plan.refused.append(Rejection(memory.path, reason))
        else:
            found.append(
                NewMemory(memory.path, content, memory.id, micros(memory.created_at), micros(memory.updated_at))
            )
    _refuse_unlisted(files, manifest, plan)
    _add(plan, found)
    if manifest.history is not None:
        _plan_history(files, manifest, spool, plan, bounds)


def _own(files: dict[str, _Received], name: str) -> Spooled | None:
    file = files.get(name)
    if file is not None and file.content is None:
        raise InvalidRequest(f"{name} is {file.size:,} bytes large; at most {file.size - 1:,} are read")
    return file.content if file is not None else None


def _listed(files: dict[str, _Received], name: str, sha256: str, spool: Spool) -> tuple[Spooled | None, str]:
    """A file that the manifest lists, or why it can't be read."""
    # In a zip a backslash is a separator, whatever program wrote it.
    file = files.get(name) or files.get(name.replace("\\", "/"))
    if file is None:
        return None, f"is in the manifest, but {name!r} is not in the export"
    if file.content is None or file.content.sha256.hex() != sha256:
        return None, f"was changed after the export: the digest of {name!r} is not the manifest's {sha256}"
    if file.content.size > CONTENT_MAX_BYTES:
        return None, f"is {file.size:,} bytes large; a memory holds at most {CONTENT_MAX_BYTES:,} bytes"
    try:
        spool.read(file.content).decode()
    except UnicodeDecodeError as error:
        return None, f"is not UTF-8 text, at byte {error.start:,}"
    return file.content, ""


def _refuse_unlisted(files: dict[str, _Received], manifest: Manifest, plan: Plan) -> None:
    listed = {memory.file for memory in manifest.memories} | set(_OWN_FILES)
    listed |= {name.replace("\\", "/") for name in listed}
    for name in files:
        if name in listed or (name.startswith(f"{layout.CONTENTS}/") and manifest.history is not None):
            continue
        if reason := _convention(name):
            plan.skipped.append(Rejection(name, reason))
        else:
            plan.refused.append(Rejection(name, "is not in the manifest: it was added after the export"))


def _plan_history(files: dict[str, _Received], manifest: Manifest, spool: Spool, plan: Plan, bounds: Bounds) -> None:
    data = _own(files, layout.VERSIONS)
    assert manifest.history is not None
    if data is None or data.sha256.hex() != manifest.history.sha256:
        raise InvalidRequest(f"{layout.VERSIONS} is not there or was changed after the export: its digest is wrong")
    by_digest = {each.content.sha256: each.content for each in files.values() if each.content is not None}
    plan.versions, refused = read_history(spool.pieces(data), by_digest, bounds.versions)
    plan.refused += refused
    plan.heads = {memory.id: memory.version_id for memory in manifest.memories}
