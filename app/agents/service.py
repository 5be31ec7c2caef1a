"""The rules of agents (contract, 5.5)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from app.agents import definition, queries
from app.audit import log as audit
from app.contract import clock, cursors, ids
from app.contract.actors import Caller
from app.contract.errors import Conflict, InvalidRequest, NotFound
from app.storage.rows.database import Row, Transaction
from app.storage.rows.listing import newest_first
from app.storage.storage import Storage

_listing = lru_cache(queries.listing)
_versions = lru_cache(queries.versions)


@dataclass(frozen=True, slots=True)
class AgentFilters:
    """Filters of a listing; times in microseconds since 1970, inclusive."""

    include_archived: bool
    created_from: int | None
    created_to: int | None


class Agents:
    """Agents of a caller's workspace. Every method raises `NotFound` for an agent that is not there."""

    def __init__(self, storage: Storage) -> None:
        self._database = storage.database

    async def create(self, caller: Caller, body: Mapping[str, Any]) -> Row:
        """Make an agent at version 1 from the fields of a create (`app.agents.wire.CreateAgent`).

        Raises:
            InvalidRequest: a field breaks its rule.

        """
        scope = {"agent_id": ids.new(ids.AGENT), "workspace_id": caller.workspace_id}
        new = definition.created(body)
        entry = audit.entry(caller, "agent.created", subject=scope["agent_id"])

        async def work(transaction: Transaction) -> Row:
            pinned = {**new, "multiagent": await _pinned(transaction, scope, new["multiagent"])}
            parameters = {**scope, "version": 1, "definition": json.dumps(pinned), "now": clock.now()}
            await transaction.execute(queries.INSERT, parameters)
            await transaction.execute(queries.INSERT_VERSION, parameters)
            found = await _found(transaction, scope)
            await audit.append(transaction, entry)
            return found

        return await self._database.transact(work)

    async def retrieve(self, caller: Caller, agent_id: str, version: int | None) -> Row:
        """One agent as its version `version` (1 or more; None: the newest) has it, archived or not.

        The row has `id`, `version` (int), `definition` (JSON text, `app.agents.definition`), `created_at`,
        `updated_at`, `archived_at` (microseconds, the last or None), and `roster`: the rows of the agents that its
        `multiagent` names, by ID and version. `app.agents.wire.agent(row)` is the vendor's agent object,
        `app.agents.wire.snapshot(row)` a session's `agent` object.

        Raises:
            NotFound: no such agent in the workspace, or no such version of it.

        """
        row = await self._find(caller, agent_id, version)
        roster: dict[tuple[str, int], Row] = {}
        for entries in definition.rosters(json.loads(row["definition"])["multiagent"]):
            for entry in entries:
                if entry["type"] == "agent":
                    roster[entry["id"], entry["version"]] = await self._find(caller, entry["id"], entry["version"])
        return {**dict(row), "roster": roster}

    async def _find(self, caller: Caller, agent_id: str, version: int | None) -> Row:
        statement = queries.FIND if version is None else queries.FIND_VERSION
        scope = {"agent_id": agent_id, "workspace_id": caller.workspace_id, "version": version}
        row = await self._database.fetch_one(statement, scope)
        if row is None:
            raise _not_found(agent_id, version)
        return row

    async def update(
        self, caller: Caller, agent_id: str, body: Mapping[str, Any], *, expected_version: int | None
    ) -> Row:
        """Change what is given (`app.agents.wire.UpdateAgent`): a new version, unless nothing changes.

        Raises:
            InvalidRequest: a field breaks its rule, or the agent is archived.
            Conflict: `expected_version` is given and is not the newest.

        """
        scope = {"agent_id": agent_id, "workspace_id": caller.workspace_id}
        entry = audit.entry(caller, "agent.updated", subject=agent_id)

        async def work(transaction: Transaction) -> Row:
            row = await _locked(transaction, scope)
            if row["archived_at"] is not None:
                raise InvalidRequest(f"agent {agent_id!r} is archived and can't be changed")
            if expected_version is not None and expected_version != row["version"]:
                raise Conflict(
                    f"version: agent {agent_id!r} is at version {row['version']}, not {expected_version}; "
                    "retrieve it and decide again"
                )
            current = json.loads(row["definition"])
            new = definition.changed(current, body)
            if "multiagent" in body:
                new["multiagent"] = await _pinned(transaction, scope, new["multiagent"])
            if new == current:
                return row
            parameters = {
                **scope,
                "version": row["version"] + 1,
                "definition": json.dumps(new),
                "now": clock.now(),
            }
            await transaction.execute(queries.INSERT_VERSION, parameters)
            await transaction.execute(queries.UPDATE, parameters)
            found = await _found(transaction, scope)
            await audit.append(transaction, entry)
            return found

        return await self._database.transact(work)

    async def archive(self, caller: Caller, agent_id: str) -> Row:
        """Archive permanently. Archiving twice changes nothing."""
        scope = {"agent_id": agent_id, "workspace_id": caller.workspace_id}
        entry = audit.entry(caller, "agent.archived", subject=agent_id)

        async def work(transaction: Transaction) -> Row:
            row = await _locked(transaction, scope)
            if row["archived_at"] is not None:
                return row
            await transaction.execute(queries.ARCHIVE, {**scope, "now": clock.now()})
            found = await _found(transaction, scope)
            await audit.append(transaction, entry)
            return found

        return await self._database.transact(work)

    async def list_page(
        self, caller: Caller, filters: AgentFilters, limit: int, page: str | None
    ) -> tuple[list[Row], str | None]:
        """A page of agents at their newest version, newest agent first, and the cursor of the next page.

        Raises:
            InvalidRequest: `page` is no cursor of this listing.

        """
        listing = (
            "agents",
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

    async def list_versions(
        self, caller: Caller, agent_id: str, limit: int, page: str | None
    ) -> tuple[list[Row], str | None]:
        """A page of the agent's versions, newest first, and the cursor of the next page.

        Raises:
            InvalidRequest: `page` is no cursor of this listing.

        """
        listing = ("agent_versions", caller.workspace_id, agent_id)
        (version,) = cursors.decode(listing, page, (int,)) if page is not None else (None,)
        if version is not None and not 0 < version < 2**31:
            raise InvalidRequest("page: is not a cursor of this listing; pass a next_page as it came")
        scope = {"agent_id": agent_id, "workspace_id": caller.workspace_id}
        rows = await self._database.fetch_all(
            _versions(continued=page is not None), {**scope, "version": version, "limit": limit + 1}
        )
        if not rows:
            await self._find(caller, agent_id, None)
        items = list(rows[:limit])
        if len(rows) <= limit:
            return items, None
        return items, cursors.encode(listing, (items[-1]["version"],))


def _not_found(agent_id: str, version: int | None = None) -> NotFound:
    which = "" if version is None else f" has no version {version}, or"
    return NotFound(f"agent {agent_id!r}{which} was not found")


async def _locked(transaction: Transaction, scope: Mapping[str, str]) -> Row:
    if await transaction.fetch_one(queries.LOCK, scope) is None:
        raise _not_found(scope["agent_id"])
    return await _found(transaction, scope)


async def _found(transaction: Transaction, scope: Mapping[str, str]) -> Row:
    row = await transaction.fetch_one(queries.FIND, scope)
    assert row is not None
    return row


async def _pinned(
    transaction: Transaction, scope: Mapping[str, str], multiagent: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """A `multiagent` whose references have a version each.

    Raises:
        InvalidRequest: a reference leads nowhere or where it may not, or a list names somebody twice.

    """
    if multiagent is None:
        return None
    pinned: dict[str, Any] = json.loads(json.dumps(multiagent))
    for entries in definition.rosters(pinned):
        entries[:] = [await _pinned_entry(transaction, scope, entry) for entry in entries]
        # An advisor has no ID; there is one at most.
        named = [scope["agent_id"] if entry["type"] == "self" else entry.get("id") for entry in entries]
        for name in named:
            if named.count(name) > 1:
                raise InvalidRequest(f"multiagent: names {name or 'an advisor'} more than once")
    return pinned


async def _pinned_entry(transaction: Transaction, scope: Mapping[str, str], entry: dict[str, Any]) -> dict[str, Any]:
    if entry["type"] != "agent":
        return entry
    if entry["id"] == scope["agent_id"] and "version" not in entry:
        return {"type": "self"}
    parameters = {**scope, "agent_id": entry["id"], "version": entry.get("version")}
    statement = queries.FIND_VERSION if "version" in entry else queries.FIND
    row = await transaction.fetch_one(statement, parameters) if _is_storable(entry["id"]) else None
    if row is None:
        raise InvalidRequest(f"multiagent: agent {entry['id']!r} was not found, or has no such version")
    if row["archived_at"] is not None:
        raise InvalidRequest(f"multiagent: agent {entry['id']!r} is archived")
    if json.loads(row["definition"])["multiagent"] is not None:
        raise InvalidRequest(f"multiagent: agent {entry['id']!r} has a multiagent itself; only one level is allowed")
    return {"type": "agent", "id": row["id"], "version": row["version"]}


def _is_storable(agent_id: str) -> bool:
    """An ID is ASCII; anything else names nothing, and need not reach the database."""
    return agent_id.isascii() and agent_id.isprintable()
