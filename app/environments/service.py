"""The rules of environments (contract, 5.5)."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from app.audit import log as audit
from app.contract import clock, ids, text
from app.contract.actors import Caller
from app.contract.errors import Conflict, InvalidRequest, NotFound
from app.contract.limits import ENVIRONMENT_DESCRIPTION_MAX_CHARACTERS
from app.environments import config, queries
from app.storage.rows.database import Row, Transaction
from app.storage.rows.listing import newest_first
from app.storage.storage import Storage

_listing = lru_cache(queries.listing)


class Environments:
    """Environments of a caller's workspace. Every method raises `NotFound` for one that is not there."""

    def __init__(self, storage: Storage) -> None:
        self._database = storage.database

    async def create(self, caller: Caller, body: Mapping[str, Any]) -> Row:
        """Make an environment from the fields of a create (`app.environments.wire.CreateEnvironment`).

        Raises:
            InvalidRequest: a field breaks its rule.
            Conflict: the name is taken.

        """
        parameters: dict[str, Any] = {
            "environment_id": ids.new(ids.ENVIRONMENT),
            "workspace_id": caller.workspace_id,
            "name": text.check_name(body["name"]),
            "description": _checked_description(body.get("description")),
            "config": json.dumps(config.complete(body.get("config"))),
            "metadata": json.dumps(text.check_metadata(body.get("metadata", {}))),
            "now": clock.now(),
        }
        entry = audit.entry(caller, "environment.created", subject=parameters["environment_id"])

        async def work(transaction: Transaction) -> Row:
            await _require_free(transaction, parameters)
            await transaction.execute(queries.INSERT, parameters)
            found = await _found(transaction, parameters)
            await audit.append(transaction, entry)
            return found

        return await self._database.transact(work)

    async def retrieve(self, caller: Caller, environment_id: str) -> Row:
        """One environment, archived or not.

        The row has `id`, `name`, `description` (or None), `config` and `metadata` (JSON texts; the config's `type` is
        `cloud`, `anthropic_cloud` or `self_hosted`), `created_at`, `updated_at`, `archived_at` (microseconds, the last
        or None).

        Raises:
            NotFound: no such environment in the workspace.

        """
        scope = {"environment_id": environment_id, "workspace_id": caller.workspace_id}
        row = await self._database.fetch_one(queries.FIND, scope)
        if row is None:
            raise _not_found(environment_id)
        return row

    async def update(self, caller: Caller, environment_id: str, body: Mapping[str, Any]) -> Row:
        """Change what is given (`app.environments.wire.UpdateEnvironment`). Nothing moves if nothing changes.

        Raises:
            InvalidRequest: a field breaks its rule, the config's type would change, or the environment is archived.
            Conflict: the name is taken.

        """
        scope = {"environment_id": environment_id, "workspace_id": caller.workspace_id}
        entry = audit.entry(caller, "environment.updated", subject=environment_id)

        async def work(transaction: Transaction) -> Row:
            row = await _locked(transaction, scope)
            if row["archived_at"] is not None:
                raise InvalidRequest(
                    f"environment {environment_id!r} is archived and can't be changed", "environment_archived"
                )
            changed = _changed(row, body)
            if all(row[key] == value for key, value in changed.items()):
                return row
            parameters = {**scope, **changed, "now": clock.now()}
            if changed["name"] != row["name"]:
                await _require_free(transaction, parameters)
            await transaction.execute(queries.UPDATE, parameters)
            found = await _found(transaction, scope)
            await audit.append(transaction, entry)
            return found

        return await self._database.transact(work)

    async def archive(self, caller: Caller, environment_id: str) -> Row:
        """Archive permanently. Archiving twice changes nothing."""
        scope = {"environment_id": environment_id, "workspace_id": caller.workspace_id}
        entry = audit.entry(caller, "environment.archived", subject=environment_id)

        async def work(transaction: Transaction) -> Row:
            row = await _locked(transaction, scope)
            if row["archived_at"] is not None:
                return row
            await transaction.execute(queries.ARCHIVE, {**scope, "now": clock.now()})
            found = await _found(transaction, scope)
            await audit.append(transaction, entry)
            return found

        return await self._database.transact(work)

    async def delete(self, caller: Caller, environment_id: str) -> None:
        """Remove an environment, archived or not; its name is free again.

        Raises:
            Conflict: a session names it.

        """
        scope = {"environment_id": environment_id, "workspace_id": caller.workspace_id}
        entry = audit.entry(caller, "environment.deleted", subject=environment_id)

        async def work(transaction: Transaction) -> None:
            await _locked(transaction, scope)
            session = await transaction.fetch_one(queries.USED, scope)
            if session is not None:
                raise Conflict(
                    f"environment {environment_id!r} is in use by session {session['id']!r}; "
                    "delete its sessions first, or archive the environment"
                )
            await transaction.execute(queries.DELETE, scope)
            await audit.append(transaction, entry)

        await self._database.transact(work)

    async def list_page(
        self, caller: Caller, include_archived: bool, limit: int, page: str | None
    ) -> tuple[list[Row], str | None]:
        """A page, newest first, and the cursor of the next one.

        Raises:
            InvalidRequest: `page` is no cursor of this listing.

        """
        listing = ("environments", caller.workspace_id, include_archived)
        statement = _listing(include_archived=include_archived, continued=page is not None)
        parameters = {"workspace_id": caller.workspace_id}
        return await newest_first(self._database, statement, parameters, listing=listing, limit=limit, page=page)


def _not_found(environment_id: str) -> NotFound:
    return NotFound(f"environment {environment_id!r} was not found")


def _checked_description(description: str | None) -> str | None:
    if description is None:
        return None
    return text.check_description(description, ENVIRONMENT_DESCRIPTION_MAX_CHARACTERS)


def _changed(row: Row, body: Mapping[str, Any]) -> dict[str, Any]:
    """The columns as an update leaves them."""
    patch = {key: value or None for key, value in body.get("metadata", {}).items()}
    name = body.get("name")
    return {
        "name": row["name"] if name is None else text.check_name(name),
        "description": _checked_description(body["description"]) if "description" in body else row["description"],
        "config": json.dumps(config.complete(body.get("config"), json.loads(row["config"]))),
        "metadata": json.dumps(text.merge_metadata(json.loads(row["metadata"]), patch)),
    }


async def _require_free(transaction: Transaction, parameters: Mapping[str, Any]) -> None:
    await transaction.fetch_one(queries.LOCK_NAMES, parameters)
    taken = await transaction.fetch_one(queries.NAMED, parameters)
    if taken is not None:
        raise Conflict(f"name: {parameters['name']!r} is the name of environment {taken['id']!r}; names are unique")


async def _locked(transaction: Transaction, scope: Mapping[str, str]) -> Row:
    row = await transaction.fetch_one(queries.LOCK, scope)
    if row is None:
        raise _not_found(scope["environment_id"])
    return row


async def _found(transaction: Transaction, scope: Mapping[str, Any]) -> Row:
    row = await transaction.fetch_one(queries.FIND, scope)
    assert row is not None
    return row
