"""Session tokens: what a session's agent shows the API instead of its owner's key.

What a token may do is decided in `app.http.access`; whom it stands for in `app.keys.service`.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.audit import log as audit
from app.contract import clock, cursors, ids
from app.contract.actors import Actor, Caller
from app.contract.errors import InvalidRequest, NotFound
from app.contract.limits import SESSION_TOKEN_SECONDS_DEFAULT, SESSION_TOKEN_SECONDS_MAX, SESSION_TOKEN_SECONDS_MIN
from app.keys.service import SESSION_TOKEN_TAG, digest_of
from app.sessions import queries
from app.sessions.service import not_found
from app.storage.rows.database import Database, Row, Transaction


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token at the one moment its secret is known; the row is as `SessionTokens.list_page` gives it."""

    row: Row
    secret: str


class SessionTokens:
    """Tokens of the sessions of a workspace; `workspace_id` None is every workspace, for the administrator.

    `actor` is who does it, for the audit log.
    Every method raises `NotFound` for a session that is not there.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        actor: Actor,
        workspace_id: str | None,
        session_id: str,
        expires_in_seconds: int = SESSION_TOKEN_SECONDS_DEFAULT,
    ) -> NewToken:
        """Make a token, good from now on until it expires, is revoked, or its session ends.

        Raises:
            InvalidRequest: the time is out of range, or the session is archived.

        """
        if not SESSION_TOKEN_SECONDS_MIN <= expires_in_seconds <= SESSION_TOKEN_SECONDS_MAX:
            raise InvalidRequest(
                f"expires_in_seconds: must be {SESSION_TOKEN_SECONDS_MIN:,} to {SESSION_TOKEN_SECONDS_MAX:,}, "
                f"not {expires_in_seconds:,}"
            )
        secret = SESSION_TOKEN_TAG + secrets.token_urlsafe(32)
        now = clock.now()
        parameters: dict[str, Any] = {
            "session_id": session_id,
            "workspace_id": workspace_id,
            "token_id": ids.new(ids.SESSION_TOKEN),
            "secret_sha256": digest_of(secret),
            "now": now,
            "expires_at": now + expires_in_seconds * clock.MICROSECONDS_PER_SECOND,
        }
        entry = _entry(actor, "session_token.created", parameters)

        async def work(transaction: Transaction) -> NewToken:
            session = await transaction.fetch_one(queries.LOCK_SESSION, parameters)
            if session is None:
                raise not_found(session_id)
            if session["archived_at"] is not None:
                raise InvalidRequest(f"session {session_id!r} is archived: it has ended, and gets no new tokens")
            await transaction.execute(queries.INSERT_TOKEN, parameters)
            row = await transaction.fetch_one(queries.FIND_TOKEN, parameters)
            assert row is not None
            await audit.append(transaction, replace(entry, workspace_id=session["workspace_id"]))
            return NewToken(row, secret)

        return await self._database.transact(work)

    async def list_page(
        self, workspace_id: str | None, session_id: str, limit: int, page: str | None
    ) -> tuple[Sequence[Row], str | None]:
        """A page, newest first, with the revoked and expired ones; and the cursor of the next page.

        Raises:
            InvalidRequest: `page` is no cursor of this listing.

        """
        scope = ("session tokens", session_id)
        parameters: dict[str, Any] = {"session_id": session_id, "workspace_id": workspace_id, "limit": limit + 1}
        statement = queries.LIST_TOKENS
        if page is not None:
            (parameters["before_id"],) = cursors.decode(scope, page, (str,))
            statement = queries.LIST_MORE_TOKENS
        rows = await self._database.fetch_all(statement, parameters)
        if not rows and await self._database.fetch_one(queries.SESSION_EXISTS, parameters) is None:
            raise not_found(session_id)
        if len(rows) <= limit:
            return rows, None
        return rows[:limit], cursors.encode(scope, (rows[limit - 1]["id"],))

    async def revoke(self, actor: Actor, workspace_id: str | None, session_id: str, token_id: str) -> None:
        """End a token; servers refuse it within 5 seconds. Revoking it again changes nothing.

        Raises:
            NotFound: the session has no such token.

        """
        parameters = {"session_id": session_id, "workspace_id": workspace_id, "token_id": token_id, "now": clock.now()}
        entry = _entry(actor, "session_token.revoked", parameters)

        async def work(transaction: Transaction) -> None:
            row = await transaction.fetch_one(queries.FIND_TOKEN, parameters)
            if row is None:
                if await transaction.fetch_one(queries.SESSION_EXISTS, parameters) is None:
                    raise not_found(session_id)
                raise NotFound(f"token {token_id!r} was not found in session {session_id!r}")
            if await transaction.execute(queries.REVOKE_TOKEN, parameters):
                await audit.append(transaction, replace(entry, workspace_id=row["workspace_id"]))

        await self._database.transact(work)


def _entry(actor: Actor, action: str, parameters: Mapping[str, Any]) -> audit.Entry:
    """What the audit log shall say; whose workspace it is, the session tells."""
    caller = Caller(parameters["workspace_id"], actor)
    return audit.entry(caller, action, subject=parameters["token_id"], detail={"session_id": parameters["session_id"]})
