"""Copying a store from another server of the same API, with the history that it shows.

What was read lies in a work directory of its own in the data directory, page by page, so that a pull which was
stopped goes on where it was: `state.json` has the next page's cursor, and is replaced after each page is on disk.
Versions come newest first. While they come, others may be written: the newest are read again until the heads of all
memories are among them. At last everything is written in one transaction, under an ID that the work directory knows
from the beginning; so a pull that was stopped even after that does not make a second store.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from app.contract import content as contents
from app.contract import ids
from app.contract.actors import Caller
from app.contract.clock import micros
from app.contract.errors import Overloaded, Unavailable
from app.storage.rows.database import Database
from app.transfer import queries
from app.transfer.archives.manifest import StoreOfExport, VersionOfExport, check_store
from app.transfer.archives.spool import Spool
from app.transfer.archives.versions import as_new
from app.transfer.importing import Imported, Imports
from app.transfer.plan import NewMemory, NewVersion, Plan
from app.transfer.remote import Remote

_PASSES = 10


@dataclass(frozen=True, slots=True)
class Source:
    """Where a store is pulled from: the server's URL and the store's ID there."""

    url: str
    store_id: str

    def work_directory(self, data_directory: Path, workspace_id: str) -> Path:
        """Where what was read of it lies."""
        named = "\n".join((self.url.rstrip("/"), self.store_id, workspace_id))
        return data_directory / "pulls" / hashlib.sha256(named.encode()).hexdigest()[:32]


class Pull:
    """One pull, begun or gone on with."""

    def __init__(self, remote: Remote, source: Source, directory: Path) -> None:
        self._remote = remote
        self._source = source
        self._directory = directory
        self._state_file = directory / "state.json"
        self._state: dict[str, Any] = {}

    def read(self, progress: Callable[[int], None]) -> None:
        """Read everything that is not here yet. `progress` is told the number of versions after each page.

        Raises:
            Unavailable: the server does not answer; the same pull goes on later.

        """
        self._directory.mkdir(parents=True, exist_ok=True)
        self._state = self._load()
        if "store" not in self._state:
            self._keep(store=self._remote.store(), new_id=ids.new(ids.STORE), page=None, number=0, is_whole=False)
        self._drop_half_pages()
        if not self._state["is_whole"]:
            for versions, page in self._remote.version_pages(self._state["page"]):
                self._put("versions", versions, page=page, is_whole=page is None)
                progress(self._state["number"])
        if not self._state.get("has_heads"):
            self._read_heads(progress)

    @property
    def new_id(self) -> str:
        """The ID of the store to come."""
        new_id: str = self._state["new_id"]
        return new_id

    def plan(self, spool: Spool, name: str) -> Plan:
        """What was read, as an import."""
        fields = self._state["store"]
        plan = Plan(versions=[])
        store = StoreOfExport(
            id=self._source.store_id,
            name=name or fields["name"],
            description=fields.get("description") or "",
            metadata=fields.get("metadata") or {},
        )
        checked = check_store(store)
        plan.name, plan.description, plan.metadata = checked["name"], checked["description"], checked["metadata"]
        versions: dict[str, NewVersion] = {}
        for item in self._lines():
            versions.setdefault(item["id"], _version(item, spool))
        heads = orjson.loads((self._directory / "heads.json").read_bytes())
        for head in heads:
            head_version = versions[head["memory_version_id"]]
            assert head_version.content is not None
            plan.heads[head["id"]] = head["memory_version_id"]
            plan.memories.append(
                NewMemory(
                    head["path"], head_version.content, head["id"], micros(head["created_at"]),
                    micros(head["updated_at"]),
                )
            )  # fmt: skip
        plan.versions = list(versions.values())[::-1]
        return plan

    def forget(self) -> None:
        """The work is done; remove what was read."""
        shutil.rmtree(self._directory)

    # The work directory

    def _load(self) -> dict[str, Any]:
        if not self._state_file.exists():
            return {}
        state: dict[str, Any] = orjson.loads(self._state_file.read_bytes())
        return state

    def _keep(self, **changes: Any) -> None:
        self._state |= changes
        _replace(self._state_file, orjson.dumps(self._state))

    def _put(self, kind: str, items: list[dict[str, Any]], **changes: Any) -> None:
        """Append a page, durably, and then note that it is there."""
        file = self._directory / f"{kind}.jsonl"
        with file.open("ab") as opened:
            opened.writelines(orjson.dumps(item) + b"\n" for item in items)
            opened.flush()
            os.fsync(opened.fileno())
            size = opened.tell()
        self._keep(**{**changes, f"{kind}_size": size, "number": self._state["number"] + len(items)})

    def _drop_half_pages(self) -> None:
        for kind in ("versions", "newer"):
            file = self._directory / f"{kind}.jsonl"
            if file.exists():
                os.truncate(file, self._state.get(f"{kind}_size", 0))

    def _lines(self) -> Iterator[dict[str, Any]]:
        """All versions, newest first, some perhaps twice."""
        newer = self._directory / "newer.jsonl"
        passes: list[list[dict[str, Any]]] = []
        if newer.exists():
            for line in newer.read_bytes().splitlines():
                item = orjson.loads(line)
                if item.get("pass"):
                    passes.append([])
                else:
                    passes[-1].append(item)
        for items in reversed(passes):
            yield from items
        with (self._directory / "versions.jsonl").open("rb") as file:
            for line in file:
                yield orjson.loads(line)

    # What was written meanwhile

    def _read_heads(self, progress: Callable[[int], None]) -> None:
        for number in range(_PASSES):
            newest: dict[str, str] = {}
            known = set()
            for item in self._lines():
                known.add(item["id"])
                newest.setdefault(item["memory_id"], item["operation"])
            heads = [head for page, _ in self._remote.memory_pages() for head in page]
            live = {memory_id for memory_id, operation in newest.items() if operation != "deleted"}
            # A memory that was deleted since shows in the versions soon; where it never does, its end has expired.
            is_settled = live == {head["id"] for head in heads} or number >= _PASSES // 2
            if is_settled and all(head["memory_version_id"] in known for head in heads):
                kept = ("id", "path", "memory_version_id", "created_at", "updated_at")
                _replace(
                    self._directory / "heads.json", orjson.dumps([{key: head[key] for key in kept} for head in heads])
                )
                self._keep(has_heads=True)
                return
            newer: list[dict[str, Any]] = [{"pass": True}]
            for page, _ in self._remote.version_pages(None):
                new = [item for item in page if item["id"] not in known]
                newer += new
                if len(new) < len(page):
                    break
            self._put("newer", newer)
            progress(self._state["number"])
        raise Overloaded("the store is written faster than it can be read; run the same again later")


def _version(item: dict[str, Any], spool: Spool) -> NewVersion:
    text = item.get("content")
    content = None if text is None else spool.put(contents.check(text).data)
    has_digest = item.get("content_sha256") is not None
    if has_digest != (content is not None) or (content and content.sha256.hex() != item["content_sha256"]):
        raise Unavailable(f"version {item['id']}: the server's content and digest do not fit together")
    try:
        version = VersionOfExport(
            seq=0,
            operation=item["operation"],
            path=item["path"],
            sha256=item["content_sha256"],
            size=content.size if content else None,
            memory_id=item["memory_id"],
            version_id=item["id"],
            created_at=item["created_at"],
            created_by=item["created_by"],
            redacted_at=item["redacted_at"],
            redacted_by=item["redacted_by"],
        )
    except (KeyError, ValidationError) as error:
        raise Unavailable(f"a version of the server can't be understood: {error}") from None
    return as_new(version, content)


def _replace(file: Path, data: bytes) -> None:
    """Durably, as a whole or not at all."""
    new = file.with_suffix(".new")
    with new.open("wb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())
    new.replace(file)


async def finish(pull: Pull, caller: Caller, imports: Imports, database: Database, name: str) -> Imported:
    """Write what was read. If a pull that was stopped wrote it already, there is only its ID to tell."""
    if await database.fetch_one(queries.STORE_EXISTS, {"store_id": pull.new_id}) is not None:
        return Imported(pull.new_id, 0)
    with Spool() as spool:
        plan = pull.plan(spool, name)
        return await imports.run(caller, plan, spool, action="store.pulled", new_id=pull.new_id)
