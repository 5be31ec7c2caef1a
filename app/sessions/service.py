"""The rules of sessions and of the memory stores they attach (contract, 5.1 to 5.3).

Nothing runs a session here: it is idle until it is archived, and terminated from then on.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from app.agents import definition
from app.agents.service import Agents
from app.audit import log as audit
from app.contract import clock, cursors, ids, slugs, text
from app.contract.actors import Caller
from app.contract.errors import InvalidRequest, NotFound
from app.environments.service import Environments
from app.sessions import attachments, queries
from app.sessions.attachments import Attachment
from app.sessions.filters import SessionFilters, is_id
from app.storage.rows.database import Database, Row, Transaction
from app.storage.storage import Storage

_listing = lru_cache(maxsize=512)(queries.listing)


@dataclass(frozen=True, slots=True)
class Session:
    """A session's row, and its attached stores in the order of attachment."""

    row: Row
    resources: Sequence[Row]


@dataclass(frozen=True, slots=True)
class NewSession:
    """What a session is made from; `agent` as the wire is to show it for the session's whole life."""

    agent: Mapping[str, Any]
    environment_id: str
    title: str | None
    metadata: Mapping[str, str]
    attachments: Sequence[Attachment]


@dataclass(frozen=True, slots=True)
class Changes:
    """What an update gives. `title` counts only if `sets_title`; None keeps the others."""

    title: str | None
    sets_title: bool
    metadata: Mapping[str, str | None] | None
    agent: Mapping[str, Any]
    """`tools` and `mcp_servers` of the session's agent, as a request has them; those not sent are absent."""


@dataclass(frozen=True, slots=True)
class SessionPage:
    """Sessions, and the cursors of the pages after and before them."""

    sessions: list[Session]
    next_page: str | None
    prev_page: str | None


def not_found(session_id: str) -> NotFound:
    """The refusal for a session that is unknown, deleted, or another workspace's."""
    return NotFound(f"session {session_id!r} was not found")


class Sessions:
    """Sessions of a caller's workspace. Every method raises `NotFound` for a session that is not there."""

    def __init__(self, storage: Storage, agents: Agents, environments: Environments) -> None:
        self._database = storage.database
        self._agents = agents
        self._environments = environments

    async def agent_for(self, caller: Caller, agent_id: str, version: int | None) -> Row:
        """The agent that a new session would have.

        Raises:
            NotFound: no such agent, or no such version of it.
            InvalidRequest: it is archived.

        """
        if not is_id(agent_id):
            raise NotFound(f"agent {agent_id!r} was not found")
        row = await self._agents.retrieve(caller, agent_id, version)
        if row["archived_at"] is not None:
            raise InvalidRequest(f"agent: {agent_id!r} is archived; a new session needs one that is not")
        return row

    async def create(self, caller: Caller, new: NewSession) -> Session:
        """Make a session with its stores attached; they can't be changed later.

        Raises:
            NotFound: no such environment or store.
            InvalidRequest: a field breaks its rule, or environment or store are archived.

        """
        if new.title is not None:
            text.check_title(new.title)
        metadata = text.check_metadata(new.metadata)
        await self._check_environment(caller, new.environment_id)
        attachments.check(new.attachments)
        session_id = ids.new(ids.SESSION)
        parameters: dict[str, Any] = {
            "session_id": session_id,
            "workspace_id": caller.workspace_id,
            "agent_id": new.agent["id"],
            "agent_version": new.agent["version"],
            "agent": json.dumps(new.agent),
            "environment_id": new.environment_id,
            "title": new.title,
            "metadata": json.dumps(metadata),
            "now": clock.now(),
        }
        entry = audit.entry(caller, "session.created", subject=session_id, detail={"stores": len(new.attachments)})

        async def work(transaction: Transaction) -> Session:
            stores = await attachments.stores_of(transaction, caller, new.attachments)
            await transaction.execute(queries.INSERT, parameters)
            directories = slugs.distinct((store["name"], store["id"]) for store in stores)
            for position, attachment in enumerate(new.attachments):
                await transaction.execute(
                    queries.INSERT_RESOURCE,
                    {
                        "session_id": session_id,
                        "position": position,
                        "store_id": attachment.store_id,
                        "access": attachment.access,
                        "instructions": attachment.instructions,
                        "name": stores[position]["name"],
                        "description": stores[position]["description"],
                        "mount_path": slugs.mount_path(directories[position]),
                    },
                )
            found = await _found(transaction, parameters)
            await audit.append(transaction, entry)
            return found

        return await self._database.transact(work)

    async def _check_environment(self, caller: Caller, environment_id: str) -> None:
        if not is_id(environment_id):
            raise NotFound(f"environment {environment_id!r} was not found")
        environment = await self._environments.retrieve(caller, environment_id)
        if environment["archived_at"] is not None:
            raise InvalidRequest(f"environment_id: {environment_id!r} is archived; a new session needs one that is not")

    async def retrieve(self, caller: Caller, session_id: str) -> Session:
        """One session, archived or not."""
        row = await self._database.fetch_one(
            queries.FIND, {"session_id": session_id, "workspace_id": caller.workspace_id}
        )
        sessions = [] if row is None else await self._with_resources([row])
        if not sessions:
            raise not_found(session_id)
        return sessions[0]

    async def update(self, caller: Caller, session_id: str, changes: Changes) -> Session:
        """Change what is given; `metadata` is a merge patch. Nothing moves if nothing changes.

        Raises:
            InvalidRequest: a field breaks its rule, or the session is archived.

        """
        scope = {"session_id": session_id, "workspace_id": caller.workspace_id}
        if changes.title is not None:
            text.check_title(changes.title)
        entry = audit.entry(caller, "session.updated", subject=session_id)

        async def work(transaction: Transaction) -> Session:
            row = await _locked(transaction, scope)
            if row["archived_at"] is not None:
                raise InvalidRequest(f"session {session_id!r} is archived and can't be changed")
            agent, metadata = json.loads(row["agent"]), json.loads(row["metadata"])
            old = {"title": row["title"], "metadata": metadata, "agent": agent}
            changed = {
                "title": changes.title if changes.sets_title else row["title"],
                "metadata": text.merge_metadata(metadata, changes.metadata or {}),
                "agent": definition.changed(agent, changes.agent),
            }
            if changed == old:
                return await _found(transaction, scope)
            stored = {name: json.dumps(changed[name]) for name in ("metadata", "agent")}
            await transaction.execute(queries.UPDATE, {**scope, **changed, **stored, "now": clock.now()})
            found = await _found(transaction, scope)
            await audit.append(transaction, entry)
            return found

        return await self._database.transact(work)

    async def archive(self, caller: Caller, session_id: str) -> Session:
        """End a session permanently, and with it its tokens. Ending it twice changes nothing."""
        scope = {"session_id": session_id, "workspace_id": caller.workspace_id}
        entry = audit.entry(caller, "session.archived", subject=session_id)

        async def work(transaction: Transaction) -> Session:
            row = await _locked(transaction, scope)
            if row["archived_at"] is not None:
                return await _found(transaction, scope)
            await transaction.execute(queries.ARCHIVE, {**scope, "now": clock.now()})
            found = await _found(transaction, scope)
            await audit.append(transaction, entry)
            return found

        return await self._database.transact(work)

    async def delete(self, caller: Caller, session_id: str) -> None:
        """Remove a session and its tokens. The stores, and the versions that it wrote, stay."""
        scope = {"session_id": session_id, "workspace_id": caller.workspace_id}
        entry = audit.entry(caller, "session.deleted", subject=session_id)

        async def work(transaction: Transaction) -> None:
            await _locked(transaction, scope)
            for statement in (queries.DELETE_TOKENS, queries.DELETE_RESOURCES, queries.DELETE):
                await transaction.execute(statement, scope)
            await audit.append(transaction, entry)

        await self._database.transact(work)

    async def list_page(
        self, caller: Caller, filters: SessionFilters, *, ascending: bool, limit: int, page: str | None
    ) -> SessionPage:
        """A page by time of creation, and the cursors of its neighbours.

        Raises:
            InvalidRequest: `page` is no cursor of this listing.

        """
        scope = ("sessions", caller.workspace_id, ascending, *filters.for_cursor())
        backwards, before, before_id = False, None, None
        if page is not None:
            backwards, before, before_id = cursors.decode(scope, page, (int, int, str))
        conditions = filters.conditions()
        rows: Sequence[Row] = []
        if conditions is not None:
            statement = _listing(conditions, ascending=ascending != bool(backwards), continued=page is not None)
            parameters = {name: getattr(filters, name) for name in conditions if name not in ("live", "archived")}
            parameters |= {"workspace_id": caller.workspace_id, "before": before, "before_id": before_id}
            rows = await self._database.fetch_all(statement, {**parameters, "limit": limit + 1})
        shown = list(rows[:limit])
        goes_on, came_from = len(rows) > limit, page is not None
        if backwards:
            shown.reverse()
            goes_on, came_from = came_from, goes_on

        def cursor(direction: int, row: Row) -> str:
            return cursors.encode(scope, (direction, row["created_at"], row["id"]))

        return SessionPage(
            await self._with_resources(shown),
            cursor(0, shown[-1]) if shown and goes_on else None,
            cursor(1, shown[0]) if shown and came_from else None,
        )

    async def resources_page(
        self, caller: Caller, session_id: str, limit: int | None, page: str | None
    ) -> tuple[Sequence[Row], str | None]:
        """The attached stores in the order of attachment, all if `limit` is None; and the cursor of the next page.

        Raises:
            InvalidRequest: `page` is no cursor of this listing.

        """
        scope = ("session resources", session_id)
        first = 0
        if page is not None:
            (last,) = cursors.decode(scope, page, (int,))
            first = last + 1
        session = await self.retrieve(caller, session_id)
        rows = [row for row in session.resources if row["position"] >= first]
        if limit is None or len(rows) <= limit:
            return rows, None
        return rows[:limit], cursors.encode(scope, (rows[limit - 1]["position"],))

    async def retrieve_resource(self, caller: Caller, session_id: str, resource_id: str) -> Row:
        """One attached store. It has no other ID than the store's own.

        Raises:
            NotFound: the session has not attached it.

        """
        session = await self.retrieve(caller, session_id)
        for row in session.resources:
            if row["store_id"] == resource_id:
                return row
        raise NotFound(f"resource {resource_id!r} was not found in session {session_id!r}")

    async def _with_resources(self, rows: Sequence[Row]) -> list[Session]:
        """The sessions behind these rows that are still there."""
        if not rows:
            return []
        found = await self._database.fetch_all(queries.FIND_RESOURCES, {"session_ids": [row["id"] for row in rows]})
        return _joined(rows, found)


async def list_all(database: Database) -> Sequence[Row]:
    """Every workspace's sessions, oldest first, with `workspace_name`; for the administrator."""
    return await database.fetch_all(queries.LIST_ALL, {})


async def stores_of(database: Database, session_ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """For each session the stores that it has attached, as names by ID, in the order of attachment."""
    found: dict[str, dict[str, str]] = {}
    for row in await database.fetch_all(queries.FIND_RESOURCES, {"session_ids": list(session_ids)}):
        if row["store_id"] is not None:
            found.setdefault(row["session_id"], {})[row["store_id"]] = row["name"]
    return found


def _joined(rows: Sequence[Row], found: Sequence[Row]) -> list[Session]:
    resources: dict[str, list[Row]] = {}
    for resource in found:
        attached = resources.setdefault(resource["session_id"], [])
        if resource["store_id"] is not None:
            attached.append(resource)
    return [Session(row, resources[row["id"]]) for row in rows if row["id"] in resources]


async def _locked(transaction: Transaction, scope: Mapping[str, str]) -> Row:
    row = await transaction.fetch_one(queries.LOCK, scope)
    if row is None:
        raise not_found(scope["session_id"])
    return row


async def _found(transaction: Transaction, scope: Mapping[str, Any]) -> Session:
    row = await transaction.fetch_one(queries.FIND, scope)
    assert row is not None
    found = await transaction.fetch_all(queries.FIND_RESOURCES, {"session_ids": [scope["session_id"]]})
    (session,) = _joined([row], found)
    return session
