"""Copying a store from another server of the same API, with the history that it shows.

What was read lies in a work directory of its own in the data directory, page by page, so that a pull which was
stopped goes on where it was: `state.json` has the next page's cursor, and is replaced after each page is on disk.
Versions come newest first. While they come, others may be written: the newest are read again until the heads of all
memories are among them. At last everything is written in one transaction, under an ID that the work directory knows
from the beginning; so a pull that was stopped even after that does not make a second store.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson

from app.contract import content as contents
from app.contract import ids
from app.contract.actors import Caller
from app.contract.clock import micros
from app.contract.errors import InvalidRequest, Overloaded, Unavailable
from app.storage.rows.database import Database
from app.transfer import answers, queries
from app.transfer.answers import RemoteHead, RemoteStore, RemoteVersion
from app.transfer.archives.manifest import StoreOfExport, VersionOfExport, check_store, fits
from app.transfer.archives.spool import Spool
from app.transfer.archives.versions import as_new
from app.transfer.importing import Imported, Imports
from app.transfer.plan import NewMemory, NewVersion, Plan, Rejection, refuse_clashes
from app.transfer.remote import Remote

_PASSES = 10
_HEADS = "heads.jsonl"
_PASS = b'{"pass":true}\n'
"""The line before the versions that one more look at the newest brought."""
_MOST_BYTES = 8 * 1024 * 1024 * 1024
"""As much as an import unpacks."""


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
    """One pull, begun or gone on with. A context: while it is open, nobody else goes on with the same."""

    def __init__(self, remote: Remote, source: Source, directory: Path) -> None:
        self._remote = remote
        self._source = source
        self._directory = directory
        self._state_file = directory / "state.json"
        self._state: dict[str, Any] = {}
        self._lock: IO[bytes] | None = None

    def read(self, progress: Callable[[int], None]) -> None:
        """Read everything that is not here yet. `progress` is told the number of versions after each page.

        Raises:
            Unavailable: the server does not answer, or not as it must; the same pull goes on later.
            InvalidRequest: another process is at the same pull, or what lies in the work directory is damaged.

        """
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock_directory()
        self._state = self._load()
        if "store" not in self._state:
            store = self._remote.store().model_dump()
            self._keep(store=store, new_id=ids.new(ids.STORE), page=None, number=0, is_whole=False)
        self._drop_half_pages()
        if not self._state["is_whole"]:
            for versions, page in self._remote.version_pages(self._state["page"]):
                self._put("versions", versions, page=page, is_whole=page is None)
                progress(self._state["number"])
        if not self._state.get("has_heads") or not (self._directory / _HEADS).exists():
            self._read_heads(progress)

    @property
    def new_id(self) -> str:
        """The ID of the store to come."""
        new_id: str = self._state["new_id"]
        return new_id

    def take_new_id(self) -> None:
        """The store with the present ID was written and deleted: make another."""
        self._keep(new_id=ids.new(ids.STORE))

    def plan(self, spool: Spool, name: str) -> Plan:
        """What was read, as an import.

        Raises:
            InvalidRequest: a name or description breaks a rule of ours.
            Unavailable: the parts of what the server said do not fit together.

        """
        fields = RemoteStore.model_validate(self._state["store"])
        plan = Plan(versions=[])
        store = StoreOfExport(
            id=self._source.store_id,
            name=name or fields.name,
            description=fields.description or "",
            metadata=fields.metadata or {},
        )
        checked = check_store(store)
        plan.name, plan.description, plan.metadata = checked["name"], checked["description"], checked["metadata"]
        versions: dict[str, NewVersion] = {}
        for item in self._lines():
            if item.id not in versions:
                versions[item.id] = _version(item, spool)
        memories = []
        for head in self._heads():
            version = versions.get(head.memory_version_id)
            if head.id in plan.heads or version is None or version.content is None:
                raise Unavailable(f"memory {head.id!r}: the server's list of memories does not fit its versions")
            plan.heads[head.id] = head.memory_version_id
            times = micros(head.created_at), micros(head.updated_at)
            memories.append(NewMemory(head.path, version.content, head.id, *times))
        clashing = {id(each): why for each, why in refuse_clashes(memories, lambda each: each.path, lambda _: False)}
        plan.refused += [Rejection(each.path, clashing[id(each)]) for each in memories if id(each) in clashing]
        plan.memories = [each for each in memories if id(each) not in clashing]
        plan.versions = list(versions.values())[::-1]
        return plan

    def forget(self) -> None:
        """The work is done; remove what was read."""
        shutil.rmtree(self._directory)
        self.close()

    def close(self) -> None:
        """Let others go on with it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # The work directory

    def _lock_directory(self) -> None:
        self._lock = (self._directory / "lock").open("ab")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise InvalidRequest("another process is pulling the same store just now; wait until it is done") from None

    def _load(self) -> dict[str, Any]:
        if not self._state_file.exists():
            return {}
        try:
            state = orjson.loads(self._state_file.read_bytes())
            if not isinstance(state, dict):
                raise ValueError("is no object")
            if "store" in state:
                RemoteStore.model_validate(state["store"])
                ids_and_page = (state["new_id"], state["page"] or "", state["number"], state["is_whole"])
                if not isinstance(ids_and_page[0], str) or not isinstance(ids_and_page[1], str):
                    raise ValueError("does not hold what it must")
        except (ValueError, KeyError) as error:
            raise InvalidRequest(
                f"{self._state_file} is damaged ({error}): remove its directory, and begin again"
            ) from None
        return state

    def _keep(self, **changes: Any) -> None:
        self._state |= changes
        _replace(self._state_file, orjson.dumps(self._state))

    def _put(self, kind: str, items: Sequence[RemoteVersion], *, is_pass: bool = False, **changes: Any) -> None:
        """Append a page, durably, and then note that it is there."""
        file = self._directory / f"{kind}.jsonl"
        with file.open("ab") as opened:
            if is_pass:
                opened.write(_PASS)
            opened.writelines(item.model_dump_json().encode() + b"\n" for item in items)
            opened.flush()
            os.fsync(opened.fileno())
            size = opened.tell()
        if size > _MOST_BYTES:
            raise Unavailable(f"the store's versions are more than {_MOST_BYTES:,} bytes, which are not read")
        self._keep(**{**changes, f"{kind}_size": size, "number": self._state["number"] + len(items)})

    def _drop_half_pages(self) -> None:
        for kind in ("versions", "newer"):
            file = self._directory / f"{kind}.jsonl"
            if file.exists():
                os.truncate(file, self._state.get(f"{kind}_size", 0))

    def _lines(self) -> Iterator[RemoteVersion]:
        """All versions, newest first, some perhaps twice."""
        newer = self._directory / "newer.jsonl"
        passes: list[list[bytes]] = []
        if newer.exists():
            with newer.open("rb") as file:
                for line in file:
                    if line == _PASS:
                        passes.append([])
                    else:
                        passes[-1].append(line)
        for lines in reversed(passes):
            yield from map(_line, lines)
        with (self._directory / "versions.jsonl").open("rb") as file:
            yield from map(_line, file)

    def _heads(self) -> Iterator[RemoteHead]:
        with (self._directory / _HEADS).open("rb") as file:
            for line in file:
                yield answers.read(RemoteHead, line, "memory")

    # What was written meanwhile

    def _read_heads(self, progress: Callable[[int], None]) -> None:
        for number in range(_PASSES):
            newest: dict[str, str] = {}
            known = set()
            for item in self._lines():
                known.add(item.id)
                newest.setdefault(item.memory_id, item.operation)
            heads = [head for page in self._remote.memory_pages() for head in page]
            live = {memory_id for memory_id, operation in newest.items() if operation != "deleted"}
            # A memory that was deleted since shows in the versions soon; where it never does, its end has expired.
            is_settled = live == {head.id for head in heads} or number >= _PASSES // 2
            if is_settled and all(head.memory_version_id in known for head in heads):
                lines = b"".join(head.model_dump_json().encode() + b"\n" for head in heads)
                _replace(self._directory / _HEADS, lines)
                self._keep(has_heads=True)
                return
            newer: list[RemoteVersion] = []
            for page, _ in self._remote.version_pages(None):
                new = [item for item in page if item.id not in known]
                newer += new
                if len(new) < len(page):
                    break
            self._put("newer", newer, is_pass=True)
            progress(self._state["number"])
        raise Overloaded("the store is written faster than it can be read; run the same again later")


def _line(line: bytes) -> RemoteVersion:
    return answers.read(RemoteVersion, line, "version")


def _version(item: RemoteVersion, spool: Spool) -> NewVersion:
    content = None if item.content is None else spool.put(contents.check(item.content).data)
    said = (item.content_sha256, item.content_size_bytes)
    is_right = said == (None, None) if content is None else said in (
        (content.sha256.hex(), content.size), (content.sha256.hex(), None),
    )  # fmt: skip
    if not is_right:
        raise Unavailable(f"version {item.id!r}: the server's content, digest and size do not fit together")
    version = VersionOfExport(
        seq=0,
        operation=item.operation,
        path=item.path,
        sha256=item.content_sha256,
        size=content.size if content else None,
        memory_id=item.memory_id,
        version_id=item.id,
        created_at=item.created_at,
        created_by=_author(item.created_by),
        redacted_at=item.redacted_at,
        redacted_by=_author(item.redacted_by),
    )
    if not fits(version):
        raise Unavailable(f"version {item.id!r}: its path and content do not fit its operation")
    return as_new(version, content)


def _author(author: dict[str, str | None] | None) -> dict[str, str] | None:
    return None if author is None else {key: value for key, value in author.items() if value is not None}


def _replace(file: Path, data: bytes) -> None:
    """Durably, as a whole or not at all."""
    new = file.with_suffix(".new")
    with new.open("wb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())
    new.replace(file)


async def finish(pull: Pull, caller: Caller, imports: Imports, database: Database, name: str) -> Imported:
    """Write what was read. What a pull that was stopped wrote already is completed, not written twice."""
    with Spool() as spool:
        plan = pull.plan(spool, name)
        there = await database.fetch_one(queries.STORE_EXISTS, {"store_id": pull.new_id})
        if there is not None and there["deleted_at"] is None:
            return Imported(pull.new_id, await imports.complete(caller, pull.new_id, plan, spool))
        if there is not None:
            pull.take_new_id()
        return await imports.run(caller, plan, spool, action="store.pulled", new_id=pull.new_id)
