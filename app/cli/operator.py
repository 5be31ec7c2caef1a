"""The author of what a command does: the person at the terminal, in the workspace of the thing that is asked for."""

import os
import pwd

from app.contract.actors import USER, Actor, Caller
from app.storage.rows.database import Database
from app.storage.rows.statements import Statement
from app.stores.service import not_found

_WORKSPACE_OF_STORE = Statement("SELECT workspace_id FROM memory_stores WHERE id = :store_id AND deleted_at IS NULL")


def actor() -> Actor:
    """The author of what a command writes: `{"type": "user_actor", "user_id": "cli:<the system's user>"}`."""
    return Actor(USER, f"cli:{system_user()}")


def system_user() -> str:
    """The name of the user this process runs as; its number where it has no name, as is usual in containers.

    Of the environment nothing is believed: the audit log says who a command was run by, not who somebody claimed to be.
    """
    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid).pw_name or str(uid)
    except KeyError:
        return str(uid)


def in_workspace(workspace_id: str) -> Caller:
    """The operator in a workspace."""
    return Caller(workspace_id, actor())


async def of_store(database: Database, store_id: str) -> Caller:
    """The operator in the workspace that a store belongs to.

    Raises:
        NotFound: there is no such store.

    """
    row = await database.fetch_one(_WORKSPACE_OF_STORE, {"store_id": store_id})
    if row is None:
        raise not_found(store_id)
    return in_workspace(row["workspace_id"])
