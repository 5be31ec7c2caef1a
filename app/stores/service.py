"""The rules of memory stores (contract, 1)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from app.contract import clock, cursors, ids, text
from app.contract.actors import Caller
from app.contract.errors import InvalidRequest, NotFound
from app.storage.database import Row, Transaction
from app.storage.storage import Storage
from app.stores import queries

_listing = lru_cache(queries.listing)


@dataclass(frozen=True, slots=True)
class StoreFilters:
    """Filters of a listing; times in microseconds since 1970, inclusive."""

    include_archived: bool
    created_from: int | None
    created_to: int | None


def not_found(store_id: str) -> NotFound:
    """The refusal for a store that is unknown, deleted, or another workspace's."""
    return NotFound(f"memory store {store_id!r} was not found")


class Stores:
    """Memory stores of a caller's workspace. Every method raises `NotFound` for a store that is not there."""

    def __init__(self, storage: Storage, *, max_stores: int) -> None:
        self._storage = storage
        self._database = storage.database
        self._max_stores = max_stores

    async def create(self, caller: Caller, name: str, description: str, metadata: Mapping[str, str]) -> Row:
        """Make an empty store.

        Raises:
            InvalidRequest: a field breaks its rule, or the workspace is full.

        """
        parameters: dict[str, Any] = {
            "store_id": ids.new(ids.STORE),
            "workspace_id": caller.workspace_id,
            "name": text.check_name(name),
            "description": text.check_description(description),
            "metadata": json.dumps(text.check_metadata(metadata)),
            "now": clock.now(),
        }

        async def work(transaction: Transaction) -> Row:
            counted = await transaction.execute(
                queries.COUNT_ONE_MORE, {"workspace_id": caller.workspace_id, "maximum": self._max_stores}
            )
            if not counted:
                raise InvalidRequest(f"the workspace already holds its maximum of {self._max_stores:,} memory stores")
            await transaction.execute(queries.INSERT, parameters)
            return await _found(transaction, parameters)

        return await self._database.transact(work)

    async def retrieve(self, caller: Caller, store_id: str) -> Row:
        """One store, archived or not."""
        row = await self._database.fetch_one(queries.FIND, {"store_id": store_id, "workspace_id": caller.workspace_id})
        if row is None:
            raise not_found(store_id)
        return row

    async def update(
        self,
        caller: Caller,
        store_id: str,
        name: str | None,
        description: str | None,
        metadata: Mapping[str, str | None] | None,
    ) -> Row:
        """Change what is given; `metadata` is a merge patch. Nothing moves if nothing changes.

        Raises:
            InvalidRequest: a field breaks its rule, or the store is archived.

        """
        scope = {"store_id": store_id, "workspace_id": caller.workspace_id}
        if name is not None:
            text.check_name(name)
        if description is not None:
            text.check_description(description)

        async def work(transaction: Transaction) -> Row:
            row = await _locked(transaction, scope)
            if row["archived_at"] is not None:
                raise InvalidRequest(f"memory store {store_id!r} is archived and can't be changed")
            current = {key: row[key] for key in ("name", "description", "metadata")}
            merged = text.merge_metadata(json.loads(row["metadata"]), metadata or {})
            changed = {
                "name": row["name"] if name is None else name,
                "description": row["description"] if description is None else description,
                "metadata": json.dumps(merged),
            }
            if changed == current:
                return row
            await transaction.execute(queries.UPDATE, {**scope, **changed, "now": clock.now()})
            return await _found(transaction, scope)

        return await self._database.transact(work, store_id=store_id)

    async def archive(self, caller: Caller, store_id: str) -> Row:
        """Archive for good; again changes nothing."""
        scope = {"store_id": store_id, "workspace_id": caller.workspace_id}

        async def work(transaction: Transaction) -> Row:
            row = await _locked(transaction, scope)
            if row["archived_at"] is not None:
                return row
            await transaction.execute(queries.ARCHIVE, {**scope, "now": clock.now()})
            return await _found(transaction, scope)

        return await self._database.transact(work, store_id=store_id)

    async def delete(self, caller: Caller, store_id: str) -> None:
        """Make the store not exist. Its rows and blobs are purged right after (`app.storage.sweeper`)."""
        scope = {"store_id": store_id, "workspace_id": caller.workspace_id}

        async def work(transaction: Transaction) -> None:
            await _locked(transaction, scope)
            await transaction.execute(queries.DELETE, {**scope, "now": clock.now()})
            await transaction.execute(queries.COUNT_ONE_LESS, scope)

        await self._database.transact(work, store_id=store_id)
        self._storage.sweeper.wake()

    async def list_page(
        self, caller: Caller, filters: StoreFilters, limit: int, page: str | None
    ) -> tuple[list[Row], str | None]:
        """A page, newest first, and the cursor of the next one.

        Raises:
            InvalidRequest: `page` is no cursor of this listing.

        """
        listing = (
            "stores",
            caller.workspace_id,
            filters.include_archived,
            filters.created_from,
            filters.created_to,
        )
        before, before_id = cursors.decode(listing, page, (int, str)) if page is not None else (None, None)
        statement = _listing(
            include_archived=filters.include_archived,
            continued=page is not None,
            backwards_from=filters.created_from is not None,
            forwards_to=filters.created_to is not None,
        )
        rows = await self._database.fetch_all(
            statement,
            {
                "workspace_id": caller.workspace_id,
                "created_from": filters.created_from,
                "created_to": filters.created_to,
                "before": before,
                "before_id": before_id,
                "limit": limit + 1,
            },
        )
        items = list(rows[:limit])
        if len(rows) <= limit:
            return items, None
        return items, cursors.encode(listing, (items[-1]["created_at"], items[-1]["id"]))


async def _locked(transaction: Transaction, scope: Mapping[str, str]) -> Row:
    row = await transaction.fetch_one(queries.LOCK, scope)
    if row is None:
        raise not_found(scope["store_id"])
    return row


async def _found(transaction: Transaction, scope: Mapping[str, str]) -> Row:
    row = await transaction.fetch_one(queries.FIND, scope)
    assert row is not None
    return row
