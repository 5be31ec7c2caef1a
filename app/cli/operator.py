"""The author of what a command does: the person at the terminal, in the workspace of the thing that is asked for."""

import os
import pwd
from typing import NamedTuple

from app.cli import names
from app.contract.actors import USER, Actor, Caller
from app.storage.rows.database import Database
from app.storage.rows.statements import Statement
from app.stores.missing import not_found
from app.stores.queries import NAMED

_WORKSPACE_OF_STORE = Statement("SELECT workspace_id FROM memory_stores WHERE id = :store_id AND deleted_at IS NULL")
_MEANT_MAX = 20


class Named(NamedTuple):
    """The store that a person means, and the operator in its workspace."""

    store_id: str
    caller: Caller


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


async def of_store(database: Database, store: str, workspace_id: str | None = None) -> Named:
    """The store with this ID, with the only ID that begins so, or with this name; of one workspace, or of whichever.

    Raises:
        NotFound: there is no such store.
        InvalidRequest: several may be meant.

    """
    if names.is_whole_id(names.STORE, store):
        row = await database.fetch_one(_WORKSPACE_OF_STORE, {"store_id": store})
        if row is None or workspace_id not in (None, row["workspace_id"]):
            raise not_found(store)
        return Named(store, in_workspace(row["workspace_id"]))
    if not names.can_be_one(store):
        names.the_one(names.STORE, store, ())
    _, composed, decomposed = names.spellings(store)
    # `~` follows every character of an ID; where no ID can begin so, none is between these two.
    start, end = (store, f"{store}~") if names.is_beginning(names.STORE, store) else ("~", "~")
    parameters = {"name": store, "composed": composed, "decomposed": decomposed, "start": start, "end": end}
    rows = await database.fetch_all(NAMED, {**parameters, "workspace_id": workspace_id, "limit": _MEANT_MAX})
    meant = [names.Candidate(row["id"], row["name"], row["workspace_name"]) for row in rows]
    found = names.the_one(names.STORE, store, meant)
    (workspace,) = [row["workspace_id"] for row in rows if row["id"] == found.id]
    return Named(found.id, in_workspace(workspace))
