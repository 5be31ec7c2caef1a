"""The rules of memory versions: history, and redaction (contract, 3)."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

from app.audit import log as audit
from app.contract import clock, cursors
from app.contract.actors import API_KEY, SERVICE_ACCOUNT, SESSION, Caller
from app.contract.errors import InvalidRequest, NotFound
from app.storage.contents.collector import condemn_unless_referenced
from app.storage.contents.reading import with_fresh_rows
from app.storage.rows.database import Row, Transaction
from app.storage.storage import Storage
from app.stores.holds import refuse_if_held
from app.stores.missing import not_found as store_not_found
from app.versions import queries

_listing = lru_cache(maxsize=512)(queries.listing)


@dataclass(frozen=True, slots=True)
class FoundVersion:
    """A version's row, and its content where it was asked for and is still there."""

    row: Row
    content: bytes | None


@dataclass(frozen=True, slots=True)
class VersionFilters:
    """Filters of a listing; None is no filter. Times in microseconds since 1970, inclusive."""

    memory_id: str | None = None
    operation: int | None = None
    session_id: str | None = None
    api_key_id: str | None = None
    service_account_id: str | None = None
    created_from: int | None = None
    created_to: int | None = None

    def actors(self) -> Sequence[tuple[str, str]]:
        """The authors that a version must have, as (type, ID); more than one is impossible to meet."""
        wanted = {
            SESSION: self.session_id,
            API_KEY: self.api_key_id,
            SERVICE_ACCOUNT: self.service_account_id,
        }
        return [(actor_type, actor_id) for actor_type, actor_id in wanted.items() if actor_id is not None]

    def can_match(self) -> bool:
        """False if no version can meet them: two authors at once, or an ID that is none."""
        ids = (self.memory_id, self.session_id, self.api_key_id, self.service_account_id)
        well_formed = all(text.isascii() and text.isprintable() for text in ids if text is not None)
        return well_formed and len(self.actors()) <= 1

    def values(self) -> tuple[str | int | None, ...]:
        """All filters in a fixed order, for the cursor."""
        return tuple(getattr(self, field.name) for field in fields(self))


class Versions:
    """Memory versions of the stores of a caller's workspace.

    Every method raises `NotFound` for a store or version that is not there.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def list_page(
        self,
        caller: Caller,
        store_id: str,
        filters: VersionFilters,
        *,
        with_content: bool,
        limit: int,
        page: str | None,
    ) -> tuple[list[FoundVersion], str | None]:
        """A page, newest first, and the cursor of the next one.

        Raises:
            InvalidRequest: `page` is no cursor of this listing.

        """
        cursor_scope = ("versions", store_id, *filters.values())
        parameters: dict[str, Any] = {
            "store_id": store_id,
            "workspace_id": caller.workspace_id,
            "memory_id": filters.memory_id,
            "operation": filters.operation,
            "created_from": filters.created_from,
            "created_to": filters.created_to,
            "limit": limit + 1,
        }
        if authors := filters.actors():
            actor_type, actor_id = authors[0]
            parameters |= (
                {"session_id": actor_id} if actor_type == SESSION else {"actor_type": actor_type, "actor_id": actor_id}
            )
        if page is not None:
            (parameters["seq"],) = cursors.decode(cursor_scope, page, (int,))
        used = tuple(name for name in queries.FILTERS if parameters.get(name) is not None)
        statement = _listing(used, with_content=with_content)

        async def read() -> tuple[Sequence[Row], list[FoundVersion]]:
            rows = await self._storage.database.fetch_all(statement, parameters) if filters.can_match() else []
            return rows, await self._with_contents(rows[:limit], with_content=with_content)

        rows, found = await with_fresh_rows(self._storage.contents, read)
        if not rows and await self._storage.database.fetch_one(queries.STORE_EXISTS, parameters) is None:
            raise store_not_found(store_id)
        if len(rows) <= limit:
            return found, None
        return found, cursors.encode(cursor_scope, (found[-1].row["seq"],))

    async def _with_contents(self, rows: Sequence[Row], *, with_content: bool) -> list[FoundVersion]:
        if not with_content:
            return [FoundVersion(row, None) for row in rows]
        references = [
            (row["store_id"], bytes(row["content_sha256"]), row["content"])
            for row in rows
            if row["content_sha256"] is not None
        ]
        texts = iter(await self._storage.contents.read_many(references))
        return [FoundVersion(row, None if row["content_sha256"] is None else next(texts)) for row in rows]

    async def retrieve(self, caller: Caller, store_id: str, version_id: str, *, with_content: bool) -> FoundVersion:
        """One version; a redacted one too, with nulls."""
        parameters = {"store_id": store_id, "workspace_id": caller.workspace_id, "version_id": version_id}

        async def read() -> FoundVersion:
            row = await self._storage.database.fetch_one(queries.FIND, parameters)
            if row is None:
                if await self._storage.database.fetch_one(queries.STORE_EXISTS, parameters) is None:
                    raise store_not_found(store_id)
                raise _not_found(version_id, store_id)
            return (await self._with_contents([row], with_content=with_content))[0]

        return await with_fresh_rows(self._storage.contents, read)

    async def redact(self, caller: Caller, store_id: str, version_id: str) -> Row:
        """Erase a version's content, path, size and digest permanently. Redacting twice changes nothing.

        The content's blob is removed unless another version of the store has the same content.

        Raises:
            InvalidRequest: it is the head of a live memory.
            UnderLegalHold: the store is, and the version is not redacted already.

        """
        parameters: dict[str, Any] = {
            "store_id": store_id,
            "workspace_id": caller.workspace_id,
            "version_id": version_id,
            "actor_type": caller.actor.type,
            "actor_id": caller.actor.id,
        }
        entry = audit.entry(caller, "version.redacted", subject=version_id, detail={"memory_store_id": store_id})

        async def work(transaction: Transaction) -> tuple[Row, bool]:
            store = await transaction.fetch_one(queries.LOCK_STORE, parameters)
            if store is None:
                raise store_not_found(store_id)
            row = await transaction.fetch_one(queries.FIND, parameters)
            if row is None:
                raise _not_found(version_id, store_id)
            if row["redacted_at"] is not None:
                return row, False
            refuse_if_held(store)
            head = await transaction.fetch_one(queries.FIND_HEAD, {"store_id": store_id, "memory_id": row["memory_id"]})
            if head is not None and head["version_id"] == version_id:
                raise InvalidRequest(
                    f"memory version {version_id!r} holds the current content of its memory; "
                    "update or delete the memory first, then redact"
                )
            await transaction.execute(queries.REDACT, {**parameters, "seq": row["seq"], "now": clock.now()})
            sha256 = row["content_sha256"]
            condemned = sha256 is not None and await condemn_unless_referenced(transaction, store_id, bytes(sha256))
            redacted = await transaction.fetch_one(queries.FIND, parameters)
            assert redacted is not None
            await audit.append(transaction, entry)
            return redacted, condemned

        row, condemned = await self._storage.database.transact(work, store_id=store_id)
        if condemned:
            self._storage.sweeper.wake()
        return row


def _not_found(version_id: str, store_id: str) -> NotFound:
    return NotFound(f"memory version {version_id!r} was not found in memory store {store_id!r}")
