"""The stores that a new session attaches (contract, 5.2)."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.contract import text
from app.contract.actors import Caller
from app.contract.errors import InvalidRequest
from app.contract.limits import SESSION_MAX_STORES
from app.sessions import queries
from app.sessions.filters import is_id
from app.storage.rows.database import Row, Transaction
from app.stores.service import not_found as store_not_found


@dataclass(frozen=True, slots=True)
class Attachment:
    """A store to attach; `access` is `read_write` or `read_only`."""

    store_id: str
    access: str
    instructions: str | None


def check(attachments: Sequence[Attachment]) -> None:
    """See that they are not too many, each another store, and their instructions within the limits.

    Raises:
        InvalidRequest: they are not.
    """
    if len(attachments) > SESSION_MAX_STORES:
        raise InvalidRequest(f"resources cannot contain more than {SESSION_MAX_STORES} memory_store entries")
    seen = set()
    for position, attachment in enumerate(attachments):
        if attachment.instructions is not None:
            text.check_instructions(attachment.instructions, f"resources.{position}.instructions")
        if attachment.store_id in seen:
            raise InvalidRequest(
                f"resources.{position}: memory store {attachment.store_id!r} is attached already; attach it once"
            )
        seen.add(attachment.store_id)


async def stores_of(transaction: Transaction, caller: Caller, attachments: Sequence[Attachment]) -> list[Row]:
    """The rows of the stores, in the order of attachment.

    Raises:
        NotFound: one is not there.
        InvalidRequest: one is archived.
    """
    wanted = [attachment.store_id for attachment in attachments if is_id(attachment.store_id)]
    rows = await transaction.fetch_all(queries.FIND_STORES, {"store_ids": wanted, "workspace_id": caller.workspace_id})
    stores = {row["id"]: row for row in rows}
    for position, attachment in enumerate(attachments):
        store = stores.get(attachment.store_id)
        if store is None:
            raise store_not_found(attachment.store_id)
        if store["archived_at"] is not None:
            raise InvalidRequest(
                f"resources.{position}: memory store {attachment.store_id!r} is archived and can't be attached"
            )
    return [stores[attachment.store_id] for attachment in attachments]
