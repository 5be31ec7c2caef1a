"""`memstore export --where`: everything in the stores of one person, for them to read."""

import asyncio
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

from app.cli import operator
from app.cli.authors import Authors
from app.cli.terminal import field
from app.contract import clock, slugs
from app.contract.actors import Caller
from app.contract.errors import InvalidRequest
from app.erasure.plan import Planner
from app.erasure.selection import Selection
from app.history.authors import names_of
from app.storage.rows.database import Row
from app.storage.storage import Storage
from app.transfer.archives import layout
from app.transfer.archives.files import new_file
from app.transfer.archives.writers import ArchiveFormat, archive_writer, format_of
from app.transfer.exporting import Exports
from app.versions.operations import OPERATION_NAMES
from app.versions.service import VersionFilters, Versions

INDEX = "index.html"
_PAGE = 500
_STYLE = """
body { font: 16px/1.5 Georgia, serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; } td, th { border: 1px solid #bbb; padding: .2rem .5rem; }
th { text-align: left; background: #f3f3f3; } td { overflow-wrap: anywhere; }
"""


@dataclass(frozen=True, slots=True)
class ExportedPerson:
    """What was written."""

    stores: Sequence[str]
    """Their IDs."""
    memories: int
    versions: int
    left_out: Sequence[str]
    """Paths whose content was erased while the export was under way."""


async def export(storage: Storage, where: Mapping[str, str], workspace: str | None, output: Path) -> ExportedPerson:
    """Write every store that has these pairs in its metadata, with all versions, and an index for a browser.

    output: a new archive (.zip, .tar …) or a new or empty directory.

    Raises:
        InvalidRequest: no store has them, or something is there already.

    """
    archive_format = format_of(output.name)
    _refuse_unless_new(output, is_file=archive_format is not None)
    selection = Selection(where=where, workspace=workspace)
    selection.check()
    plan = await Planner(storage).plan(selection)
    stores = [(one.id, one.name, one.workspace_id) for one in plan.stores]
    found = [(store_id, name, space) for store_id, name, space in stores if name is not None and space is not None]
    if not found:
        pairs = ", ".join(f"{key}={value}" for key, value in where.items())
        raise InvalidRequest(f"no store has {pairs!r} in its metadata; nothing was exported")
    if archive_format is None:
        await asyncio.to_thread(output.mkdir, mode=0o700, parents=True, exist_ok=True)
        return await _into(storage, found, where, output)
    await asyncio.to_thread(output.parent.mkdir, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name[:100]}.", dir=output.parent) as directory:
        written = await _into(storage, found, where, Path(directory))
        await asyncio.to_thread(_pack, Path(directory), archive_format, output)
    return written


def _refuse_unless_new(output: Path, *, is_file: bool) -> None:
    if output.exists() and (is_file or not output.is_dir() or any(output.iterdir())):
        raise InvalidRequest(f"{str(output)!r} is there already; remove it first, or give another name")


async def _into(
    storage: Storage, stores: Sequence[tuple[str, str, str]], where: Mapping[str, str], directory: Path
) -> ExportedPerson:
    places = slugs.distinct((name, store_id) for store_id, name, _ in stores)
    parts, left_out, memories, versions = [], list[str](), 0, 0
    for (store_id, _, workspace_id), place in zip(stores, places, strict=True):
        caller = operator.in_workspace(workspace_id)
        exporter = await Exports(storage).begin(caller, store_id, history=True, form="directory")
        await exporter.into_directory(directory / place)
        rows = await _versions(storage, caller, store_id)
        authors = Authors(await names_of(storage.database, rows))
        parts.append(_store(directory / place, place, rows, authors))
        memories, versions = memories + exporter.result.memories, versions + (exporter.result.versions or 0)
        left_out += exporter.result.left_out
    (directory / INDEX).write_text(_index(where, parts), encoding="utf-8")
    return ExportedPerson([store_id for store_id, _, _ in stores], memories, versions, left_out)


async def _versions(storage: Storage, caller: Caller, store_id: str) -> list[Row]:
    rows: list[Row] = []
    page: str | None = None
    while True:
        found, page = await Versions(storage).list_page(
            caller, store_id, VersionFilters(), with_content=False, limit=_PAGE, page=page
        )
        rows += [version.row for version in found]
        if page is None:
            return rows


def _pack(directory: Path, archive_format: ArchiveFormat, output: Path) -> None:
    writer = archive_writer(archive_format)
    with new_file(output) as file:
        for path in sorted(path for path in directory.rglob("*") if path.is_file()):
            modified = path.stat().st_mtime_ns // 1_000
            writer.add(str(path.relative_to(directory)), path.read_bytes(), modified)
            file.write(writer.take())
        file.write(writer.finish())


# The index


def _text(value: object) -> str:
    return escape(field(value))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Heads are ours; cells are HTML."""
    head = "".join(f"<th>{each}</th>" for each in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _link(place: str, file: str, shown: str) -> str:
    return f'<a href="{quote(f"{place}/{file}")}">{_text(shown)}</a>'


def _store(directory: Path, place: str, rows: Sequence[Row], authors: Authors) -> str:
    manifest = json.loads((directory / layout.MANIFEST).read_text(encoding="utf-8"))
    store = manifest["memory_store"]
    about = [("ID", _text(store["id"])), ("Description", _text(store["description"]))]
    about += [(_text(key), _text(value)) for key, value in store["metadata"].items()]
    last = {row["memory_id"]: row for row in reversed(rows)}
    now = [
        (
            _link(place, memory["file"], memory["path"]),
            f"{memory['size']:,}",
            _text(memory["created_at"]),
            _text(memory["updated_at"]),
            _text(authors.label(last[memory["id"]])) if memory["id"] in last else "-",
        )
        for memory in manifest["memories"]
    ]
    files = {memory["sha256"]: memory["file"] for memory in manifest["memories"]}
    past = [_version(directory, place, row, files, authors) for row in rows]
    return "\n".join(
        (
            f"<h2>{_text(store['name'])}</h2>",
            _table(("", ""), about),
            "<h3>Texts</h3>",
            _table(("Text", "Bytes", "Made", "Changed", "Last changed by"), now),
            "<h3>What was done, newest first</h3>",
            _table(("Number", "When", "What", "Who", "Text of then"), past),
        )
    )


def _version(directory: Path, place: str, row: Row, files: Mapping[str, str], authors: Authors) -> tuple[str, ...]:
    shown = "redacted" if row["path"] is None else row["path"]
    cell = _text(shown)
    if row["content_sha256"] is not None:
        digest = bytes(row["content_sha256"])
        file = files.get(digest.hex(), layout.content_file(digest))
        if (directory / file).is_file():
            cell = _link(place, file, shown)
    when = _text(clock.rfc3339(row["created_at"]))
    return str(row["seq"]), when, OPERATION_NAMES[row["operation"]], _text(authors.label(row)), cell


def _index(where: Mapping[str, str], parts: Sequence[str]) -> str:
    pairs = _text(", ".join(f"{key} = {value}" for key, value in where.items()))
    title = f"What is kept about {pairs}"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n<h1>{title}</h1>\n"
        f"<p>Written on {_text(clock.rfc3339(clock.now()))}. Every text is a file beside this page; each directory can "
        "be imported into another system ('memstore import').</p>\n" + "\n".join(parts) + "\n</body></html>\n"
    )
