"""Finding what a selection means: the stores and memories that would go, and where a text was found.

Nothing is changed. Every version that is not redacted is looked at, also those of deleted memories; content is read
from the stage and the blob store, whatever its digest, since a damaged text is a text.
"""

import asyncio
import json
import re
import unicodedata
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.contract import ids
from app.contract.errors import NotFound
from app.erasure import queries
from app.erasure.columns import is_in_column
from app.erasure.folding import Folded, Occurrence
from app.erasure.labels import LABELLED, PlannedText
from app.erasure.selection import Selection
from app.storage.rows.database import Row
from app.storage.storage import Storage

_BATCH = 200
_WORDS = 6
_WINDOW = 100
"""Characters around a hit in which its neighbouring words are looked for."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One place where the text was found, as it is spelled there, with a few words around it.

    `place` is `path` or `content`.
    """

    store_id: str
    memory_id: str
    version_id: str
    path: str
    place: str
    before: str
    text: str
    after: str


@dataclass(frozen=True, slots=True)
class PlannedStore:
    """A store that goes whole. `name` is None where the store itself is gone, and only traces of it are left.

    `found_in`: what of it has the text that was looked for; nothing where it was chosen otherwise.
    """

    id: str
    workspace_id: str | None
    name: str | None
    memories: int
    versions: int
    sessions: int
    held_at: int | None
    found_in: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlannedMemory:
    """A memory that goes with all its versions. `bytes` are those of its unredacted versions together."""

    id: str
    store_id: str
    path: str
    live: bool
    versions: int
    bytes: int


@dataclass(slots=True)
class Plan:
    """What an erasure would do."""

    stores: list[PlannedStore] = field(default_factory=list)
    memories: list[PlannedMemory] = field(default_factory=list)
    touched: dict[str, Row] = field(default_factory=dict)
    """The stores that lose memories and stay, by ID."""
    hits: list[Hit] = field(default_factory=list)
    unreadable: int = 0
    """Versions whose content is nowhere: it could not be searched."""
    text: str = ""
    """What was looked for, if `texts` are to go."""
    texts: list[PlannedText] = field(default_factory=list)
    """The records around the memories that have it."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing would go."""
        return not (self.stores or self.memories or any(one.fields for one in self.texts))

    @property
    def changed_texts(self) -> list[dict[str, Any]]:
        """What would lose the text: `kind`, `id` and the `fields`."""
        return self._by_record("fields")

    @property
    def kept_texts(self) -> list[dict[str, Any]]:
        """What holds the text and stays, since it is in use: `kind`, `id` and the fields, `kept`."""
        return self._by_record("kept")

    def _by_record(self, which: str) -> list[dict[str, Any]]:
        found: dict[tuple[str, str], dict[str, None]] = {}
        for one in self.texts:
            if names := getattr(one, which):
                found.setdefault((one.kind, one.id), {}).update(dict.fromkeys(names))
        return [{"kind": kind, "id": identifier, which: list(names)} for (kind, identifier), names in found.items()]

    @property
    def store_ids(self) -> list[str]:
        """Every store that is touched."""
        return sorted({store.id for store in self.stores} | set(self.touched))

    @property
    def workspace_ids(self) -> list[str]:
        """The workspaces of these stores."""
        found = {store.workspace_id for store in self.stores} | {row["workspace_id"] for row in self.touched.values()}
        found |= {one.workspace_id for one in self.texts if one.fields}
        return sorted(workspace_id for workspace_id in found if workspace_id is not None)


class Planner:
    """Makes plans."""

    def __init__(self, storage: Storage, workspace_id: str | None = None) -> None:
        """workspace_id: the only workspace that the caller can see; None for an operator, who sees all."""
        self._storage = storage
        self._database = storage.database
        self._own = workspace_id

    async def plan(self, selection: Selection) -> Plan:
        """What the selection means at this moment.

        Raises:
            InvalidRequest: it selects nothing at all.
            NotFound: a store or the workspace that it names does not exist, nor any trace of it.

        """
        selection.check()
        workspace_id = self._own or await self.workspace_id(selection.workspace)
        rows = await self._rows(selection, workspace_id)
        plan = Plan()
        if selection.wants_memories:
            wanted = Folded(selection.contains or "")
            for row in rows:
                found_in = () if selection.path_prefix is not None else _labels_with(row, wanted)
                if found_in:
                    plan.stores.append(_store(row, found_in))
                elif row["deleted_at"] is None:
                    await self._search(plan, selection, row)
            if selection.contains is not None and selection.wants_everything:
                plan.text = selection.contains
                for labelled in LABELLED:
                    plan.texts += [one async for one in labelled.find(self._database, wanted, workspace_id)]
            return plan
        plan.stores = [_store(row) for row in rows]
        known = {row["id"] for row in rows}
        for store_id in selection.store_ids:
            if store_id not in known and not selection.where:
                plan.stores.append(await self._traces(store_id, workspace_id, selection.spelling.store_ids))
        return plan

    async def workspace_id(self, name: str | None) -> str | None:
        """The ID of the workspace of this name; None without a name.

        Raises:
            NotFound: there is none.

        """
        if name is None:
            return None
        row = await self._database.fetch_one(queries.WORKSPACE, {"name": name})
        if row is None:
            raise NotFound(f"--workspace: there is no workspace {name!r}; see 'memstore keys list'")
        workspace_id: str = row["id"]
        return workspace_id

    async def _rows(self, selection: Selection, workspace_id: str | None) -> list[Row]:
        if selection.store_ids:
            possible = {store_id for store_id in selection.store_ids if _is_id(store_id)}
            wanted = {"store_ids": sorted(possible), "workspace_id": workspace_id}
            rows = list(await self._database.fetch_all(queries.STORES_BY_ID, wanted))
            missing = set(selection.store_ids) - {row["id"] for row in rows}
            if missing and selection.wants_memories:
                raise NotFound(f"{selection.spelling.store_ids}: memory store {min(missing)!r} was not found")
        else:
            rows = [row async for row in self._all_rows(workspace_id)]
        return [row for row in rows if _has_all(json.loads(row["metadata"]), selection.where)]

    async def _all_rows(self, workspace_id: str | None) -> AsyncIterator[Row]:
        after = ""
        parameters = {"workspace_id": workspace_id, "limit": _BATCH}
        while rows := await self._database.fetch_all(queries.STORES, {**parameters, "store_id": after}):
            after = rows[-1]["id"]
            for row in rows:
                yield row

    async def _traces(self, store_id: str, workspace_id: str | None, spelled: str) -> PlannedStore:
        """A store that was deleted before, if anything of it is left: in sessions, or in old versions of objects."""
        if await self._is_of(store_id, workspace_id):
            row = await self._database.fetch_one(queries.ATTACHED, {"store_id": store_id})
            assert row is not None
            blobs = self._storage.blobs
            if row["sessions"] or await blobs.list_store(store_id) or await self._has_versions(store_id):
                return PlannedStore(store_id, workspace_id, None, 0, 0, row["sessions"], None)
        raise NotFound(f"{spelled}: memory store {store_id!r} was not found, nor any trace of it")

    async def _is_of(self, store_id: str, workspace_id: str | None) -> bool:
        """Whether a store whose row was not found is, or was, in this workspace, or in any."""
        if not _is_id(store_id):
            return False
        if workspace_id is None:
            return True
        owner = await self._database.fetch_one(queries.OWNER, {"store_id": store_id})
        return owner is not None and owner["workspace_id"] == workspace_id

    async def _has_versions(self, store_id: str) -> bool:
        versions = self._storage.blobs.object_versions
        return versions is not None and bool(await versions.of_store(store_id))

    async def _search(self, plan: Plan, selection: Selection, store: Row) -> None:
        """Add the memories of one store that match."""
        hits: dict[tuple[str, str, str], Hit] = {}
        found: set[str] = set()
        paths: dict[str, str] = {}
        seq = 0
        text = selection.contains
        wanted = Folded(text or "")
        verdicts: dict[bytes, list[Occurrence]] = {}
        while rows := await self._database.fetch_all(
            queries.VERSIONS, {"store_id": store["id"], "seq": seq, "limit": _BATCH}
        ):
            seq = rows[-1]["seq"]
            matching = [row for row in rows if selection.matches_path(row["path"])]
            if text is not None:
                await self._judge(plan, store["id"], matching, wanted, verdicts)
            for row in rows:
                paths[row["memory_id"]] = row["path"]
            for row in matching:
                if text is None:
                    found.add(row["memory_id"])
                    continue
                sha256 = row["content_sha256"]
                places = [("path", one) for one in _around(row["path"], wanted)]
                places += [("content", one) for one in (verdicts[bytes(sha256)] if sha256 else ())]
                for place, one in places:
                    found.add(row["memory_id"])
                    key = (row["memory_id"], row["path"] if place == "path" else "", f"{one.before}\0{one.after}")
                    around = (one.before, one.text, one.after)
                    hits.setdefault(key, Hit(store["id"], row["memory_id"], row["id"], row["path"], place, *around))
        if not found:
            return
        plan.touched[store["id"]] = store
        plan.hits += hits.values()
        for start in range(0, len(found), _BATCH):
            part = sorted(found)[start : start + _BATCH]
            rows = await self._database.fetch_all(queries.MEMORIES, {"store_id": store["id"], "memory_ids": part})
            plan.memories += [_memory(row, store["id"], paths) for row in rows]

    async def _judge(
        self,
        plan: Plan,
        store_id: str,
        rows: Sequence[Row],
        text: Folded,
        verdicts: dict[bytes, list[Occurrence]],
    ) -> None:
        """Note for each content what stands around the text in it."""
        away: dict[bytes, None] = {}
        for row in rows:
            sha256 = row["content_sha256"] and bytes(row["content_sha256"])
            if sha256 is None or sha256 in verdicts:
                continue
            if row["content"] is None:
                away[sha256] = None
            else:
                verdicts[sha256] = _around(_text(row["content"]), text)
                await asyncio.sleep(0)
        wanted = [(store_id, sha256) for sha256 in away if sha256 not in verdicts]
        for (_, sha256), content in zip(wanted, await self._storage.blobs.get_many(wanted), strict=True):
            if content is None:
                content = await self._staged_again(store_id, sha256)
            if content is None:
                plan.unreadable += 1
            verdicts[sha256] = [] if content is None else _around(_text(content), text)
            await asyncio.sleep(0)  # A server that looks for a text answers others meanwhile.

    async def _staged_again(self, store_id: str, sha256: bytes) -> bytes | None:
        """A content that came back into the stage after the rows were read."""
        row = await self._database.fetch_one(queries.STAGED, {"store_id": store_id, "sha256": sha256})
        return None if row is None else bytes(row["content"])


def _is_id(text: str) -> bool:
    """Whether it could be a store's; anything else must not reach the databases, nor the blob store."""
    return re.fullmatch(rf"{ids.STORE}_[0-9A-Za-z]+", text) is not None


def _store(row: Row, found_in: tuple[str, ...] = ()) -> PlannedStore:
    counts = (row["memories"], row["versions"], row["sessions"])
    return PlannedStore(row["id"], row["workspace_id"], row["name"], *counts, row["held_at"], found_in)


def _labels_with(row: Row, wanted: Folded) -> tuple[str, ...]:
    """What of a store itself has the text."""
    names = ("name", "description", "metadata")
    return tuple(name for name in names if is_in_column(f"memory_stores.{name}", row[name], wanted))


def _memory(row: Row, store_id: str, paths: dict[str, str]) -> PlannedMemory:
    live = row["path"] is not None
    return PlannedMemory(
        row["memory_id"],
        store_id,
        row["path"] if live else paths[row["memory_id"]],
        live,
        row["versions"],
        int(row["bytes"]),
    )


def _has_all(metadata: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Exact but for the canonical form: an ID that differs in case alone is another person's.

    Pairs are compared, for a store may have a key in both canonical forms, with a value each.
    """
    return _composed_pairs(wanted) <= _composed_pairs(metadata)


def _composed_pairs(metadata: Mapping[str, str]) -> set[tuple[str, str]]:
    return {(_composed(key), _composed(value)) for key, value in metadata.items()}


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _text(content: bytes) -> str:
    return bytes(content).decode(errors="replace")


def _around(where: str, text: Folded) -> list[Occurrence]:
    """Each occurrence with the words before and after it, on one line."""
    found = text.occurrences(where, _WINDOW)
    return [Occurrence(_last_words(one.before), one.text, _first_words(one.after)) for one in found]


def _last_words(text: str) -> str:
    pieces = re.findall(r"\S+\s*", text)[-_WORDS:]
    return re.sub(r"\s+", " ", "".join(pieces) if pieces else text[-1:])


def _first_words(text: str) -> str:
    pieces = re.findall(r"\s*\S+", text)[:_WORDS]
    return re.sub(r"\s+", " ", "".join(pieces) if pieces else text[:1])
