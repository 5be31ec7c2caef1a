"""What must hold before a memory is written: its store is there and open, the path is free, the content is as expected.

Each is asked of rows that the caller's transaction has locked, memories first and their store last.
"""

from collections.abc import Mapping
from typing import Any

from app.contract import paths
from app.contract.errors import InvalidRequest, NotFound, PathConflict, PreconditionFailed
from app.memories import queries
from app.storage.rows.database import Row, Transaction
from app.stores.service import not_found as store_not_found


def not_found(memory_id: str, store_id: str) -> NotFound:
    """The refusal for a memory that its store does not have."""
    return NotFound(
        f"memory {memory_id!r} was not found in memory store {store_id!r}", store_id=store_id, memory_id=memory_id
    )


async def lock(transaction: Transaction, scope: Mapping[str, Any]) -> tuple[Row, Row]:
    """The memory's and the store's row, locked in this order; `NotFound` if one is missing."""
    memory = await transaction.fetch_one(queries.LOCK, scope)
    store = await lock_store(transaction, scope)
    if memory is None:
        raise not_found(scope["memory_id"], scope["store_id"])
    return memory, store


async def lock_store(transaction: Transaction, scope: Mapping[str, Any]) -> Row:
    """The row of the caller's store, locked; `NotFound` if there is none."""
    store = await transaction.fetch_one(queries.LOCK_STORE, scope)
    if store is None:
        raise store_not_found(scope["store_id"])
    return store


def refuse_if_archived(store: Row, store_id: str) -> None:
    """An archived store takes deletions only."""
    if store["archived_at"] is not None:
        raise InvalidRequest(
            f"memory store {store_id!r} is archived: its memories can be read and deleted, not created or updated"
        )


async def refuse_conflict(transaction: Transaction, store_id: str, memory_id: str, path: str) -> None:
    """Refuse a path that another memory has, or that lies above or below another one's; `PathConflict`."""
    below, below_end = paths.subtree(path + "/")
    conflict = await transaction.fetch_one(
        queries.FIND_CONFLICT,
        {
            "store_id": store_id,
            "memory_id": memory_id,
            "paths": [path, *paths.ancestors(path)],
            "below": below,
            "below_end": below_end,
        },
    )
    if conflict is not None:
        raise PathConflict(path, conflict["id"], conflict["path"])


def refuse_unexpected(memory: Row | None, expected: bytes | None) -> None:
    """Refuse a change of a memory whose content is not the expected one; None: it is deleted, or nothing is expected.

    Raises:
        PreconditionFailed: the digests differ.

    """
    if expected is None:
        return
    if memory is None:
        raise PreconditionFailed(
            f"the memory is deleted, so its content does not have the expected SHA-256 digest {expected.hex()}"
        )
    sha256 = bytes(memory["content_sha256"])
    if sha256 != expected:
        raise PreconditionFailed(
            f"the memory's content has the SHA-256 digest {sha256.hex()}, not the expected {expected.hex()}: "
            "it was changed meanwhile; read it again and decide"
        )
