"""The rules of memory stores (contract, 1)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from app.audit import log as audit
from app.contract import clock, ids, text
from app.contract.actors import Caller
from app.contract.errors import InvalidRequest
from app.storage.rows.database import Row, Transaction
from app.storage.rows.listing import newest_first
from app.storage.storage import Storage
from app.stores import queries
from app.stores.holds import refuse_if_held
from app.stores.missing import not_found as not_found

_listing = lru_cache(queries.listing)


@dataclass(frozen=True, slots=True)
class StoreFilters:
    """Filters of a listing; times in microseconds since 1970, inclusive."""

    include_archived: bool
    created_from: int | None
    created_to: int | None


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
        entry = audit.entry(caller, "store.created", subject=parameters["store_id"])

        async def work(transaction: Transaction) -> Row:
            counted = await transaction.execute(
                queries.COUNT_ONE_MORE, {"workspace_id": caller.workspace_id, "maximum": self._max_stores}
            )
            if not counted:
                raise InvalidRequest(f"the workspace already holds its maximum of {self._max_stores:,} memory stores")
            await transaction.execute(queries.INSERT, parameters)
            found = await _found(transaction, parameters)
            await audit.append(transaction, entry)
            return found

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
        entry = audit.entry(caller, "store.updated", subject=store_id)

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
            found = await _found(transaction, scope)
            await audit.append(transaction, entry)
            return found

        return await self._database.transact(work, store_id=store_id)

    async def archive(self, caller: Caller, store_id: str) -> Row:
        """Archive permanently. Archiving twice changes nothing."""
        scope = {"store_id": store_id, "workspace_id": caller.workspace_id}
        entry = audit.entry(caller, "store.archived", subject=store_id)

        async def work(transaction: Transaction) -> Row:
            row = await _locked(transaction, scope)
            if row["archived_at"] is not None:
                return row
            await transaction.execute(queries.ARCHIVE, {**scope, "now": clock.now()})
            found = await _found(transaction, scope)
            await audit.append(transaction, entry)
            return found

        return await self._database.transact(work, store_id=store_id)

    async def delete(self, caller: Caller, store_id: str) -> None:
        """Make the store not exist. Its rows and blobs are purged right after (`app.storage.upkeep.sweeper`).

        Raises:
            UnderLegalHold: it is.

        """
        scope = {"store_id": store_id, "workspace_id": caller.workspace_id}
        entry = audit.entry(caller, "store.deleted", subject=store_id)

        async def work(transaction: Transaction) -> None:
            refuse_if_held(await _locked(transaction, scope))
            await transaction.execute(queries.DELETE, {**scope, "now": clock.now()})
            await transaction.execute(queries.COUNT_ONE_LESS, scope)
            await audit.append(transaction, entry)

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
        statement = _listing(
            include_archived=filters.include_archived,
            continued=page is not None,
            backwards_from=filters.created_from is not None,
            forwards_to=filters.created_to is not None,
        )
        parameters = {
            "workspace_id": caller.workspace_id,
            "created_from": filters.created_from,
            "created_to": filters.created_to,
        }
        return await newest_first(self._database, statement, parameters, listing=listing, limit=limit, page=page)


async def _locked(transaction: Transaction, scope: Mapping[str, str]) -> Row:
    row = await transaction.fetch_one(queries.LOCK, scope)
    if row is None:
        raise not_found(scope["store_id"])
    return row


async def _found(transaction: Transaction, scope: Mapping[str, str]) -> Row:
    row = await transaction.fetch_one(queries.FIND, scope)
    assert row is not None
    return row
