"""API keys: making, listing and revoking them, and telling who a request comes from: a key or a session's token.

A key's secret is `msk_` and 43 random characters, a session token's `mst_` and as many. Only the SHA-256 is stored:
with 256 random bits there is nothing to guess, so a slow password hash would cost every request and protect nothing.
"""

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

from app.audit import log as audit
from app.contract import clock, ids
from app.contract.actors import API_KEY, READ_WRITE, SESSION, Actor, Caller, SessionScope
from app.contract.errors import AuthenticationFailed, NotFound, Overloaded
from app.keys import queries
from app.storage.rows.database import Database, Row, Transaction

DEFAULT_WORKSPACE = "default"

SESSION_TOKEN_TAG = "mst_"  # noqa: S105 - what every token begins with

_CACHE_SECONDS = 3.0
"""How long a look-up is trusted: the longest that a revoked key or token lives on."""
_CACHE_ENTRIES = 10_000
_REFUSED_SECONDS = 1.0
"""How long an unknown secret is refused unasked. Short, since somebody may be about to make it known."""
_STRANGERS_AT_ONCE = 4
"""Look-ups of secrets that were not good lately; those that were do not wait behind them."""
_STRANGERS_WAIT_SECONDS = 5.0

_REFUSAL = "invalid x-api-key"
_ENDED = "the session token was revoked or has expired, or its session has ended"


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key at the one moment its secret is known."""

    id: str
    secret: str
    workspace_id: str


def digest_of(secret: str | bytes) -> bytes:
    """What is stored of a secret."""
    return hashlib.sha256(secret.encode() if isinstance(secret, str) else secret).digest()


class Keys:
    """Administration of keys, on an open database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, workspace: str, name: str = "", *, actor: Actor | None = None, secret: str | None = None
    ) -> NewKey:
        """Make a key for a workspace, which is also made if it is new. `secret`: use this one instead of a random one.

        actor: the author, for the audit log; None: the service itself.
        """
        key = NewKey(ids.new(ids.API_KEY), secret or f"msk_{secrets.token_urlsafe(32)}", "")

        async def work(transaction: Transaction) -> str:
            workspace_id, entries = await _ensure_workspace(transaction, workspace, actor)
            made = await transaction.execute(
                queries.INSERT_KEY,
                {
                    "key_id": key.id,
                    "workspace_id": workspace_id,
                    "name": name,
                    "secret_sha256": digest_of(key.secret),
                    "now": clock.now(),
                },
            )
            if made:
                entries.append(_entry(actor, "key.created", workspace_id, key.id))
            await audit.append(transaction, *entries)
            return workspace_id

        return NewKey(key.id, key.secret, await self._database.transact(work))

    async def ensure_bootstrap(self) -> str:
        """Make the row that stands for the bootstrap key as an author; the ID of its workspace."""

        async def work(transaction: Transaction) -> str:
            workspace_id, entries = await _ensure_workspace(transaction, DEFAULT_WORKSPACE, None)
            made = await transaction.execute(
                queries.INSERT_KEY,
                {
                    "key_id": ids.BOOTSTRAP_API_KEY_ID,
                    "workspace_id": workspace_id,
                    "name": "bootstrap",
                    "secret_sha256": None,
                    "now": clock.now(),
                },
            )
            if made:
                entries.append(_entry(None, "key.created", workspace_id, ids.BOOTSTRAP_API_KEY_ID))
            await audit.append(transaction, *entries)
            return workspace_id

        return await self._database.transact(work)

    async def list_all(self) -> Sequence[Row]:
        """Every key, oldest first: `id, name, workspace_id, workspace_name, created_at, revoked_at`."""
        return await self._database.fetch_all(queries.LIST_KEYS, {})

    async def is_revoked(self, secret: str) -> bool | None:
        """Whether the key with this secret was revoked; None: there is no such key."""
        row = await self._database.fetch_one(queries.FIND_KEY, {"secret_sha256": digest_of(secret)})
        return None if row is None else row["revoked_at"] is not None

    async def revoke(self, key_id: str, *, actor: Actor | None = None) -> None:
        """End a key; revoking it again changes nothing. `actor` as in `create`.

        Raises:
            NotFound: there is no such key.

        """

        async def work(transaction: Transaction) -> None:
            row = await transaction.fetch_one(queries.FIND_KEY_BY_ID, {"key_id": key_id})
            if row is None:
                raise NotFound(f"API key {key_id!r} was not found")
            if await transaction.execute(queries.REVOKE_KEY, {"key_id": key_id, "now": clock.now()}):
                await audit.append(transaction, _entry(actor, "key.revoked", row["workspace_id"], key_id))

        await self._database.transact(work)


async def _ensure_workspace(transaction: Transaction, name: str, actor: Actor | None) -> tuple[str, list[audit.Entry]]:
    """The workspace's ID, and what the audit log shall say if it was made."""
    made = await transaction.execute(
        queries.ENSURE_WORKSPACE,
        {"workspace_id": ids.new(ids.WORKSPACE), "name": name, "now": clock.now()},
    )
    row = await transaction.fetch_one(queries.FIND_WORKSPACE, {"name": name})
    assert row is not None
    workspace_id: str = row["id"]
    return workspace_id, [_entry(actor, "workspace.created", workspace_id, workspace_id)] if made else []


def _entry(actor: Actor | None, action: str, workspace_id: str, subject: str) -> audit.Entry:
    caller = None if actor is None else Caller(workspace_id, actor)
    return audit.entry(caller, action, subject=subject, workspace_id=workspace_id)


class Authenticator:
    """The caller that a secret belongs to; look-ups are cached for a few seconds.

    A caller without a key can make it look up things, so that has its bounds: an unknown secret is refused for a moment
    without a look, and a few secrets at a time are looked up, however many come.
    """

    def __init__(self, database: Database, bootstrap_secret: str | None) -> None:
        self._database = database
        self._bootstrap = digest_of(bootstrap_secret) if bootstrap_secret else None
        self._cache: dict[bytes, tuple[float, Caller]] = {}
        self._refused: dict[bytes, tuple[float, str]] = {}
        """Until when, and with which words."""
        self._strangers = asyncio.Semaphore(_STRANGERS_AT_ONCE)

    async def authenticate(self, secret: bytes) -> Caller:
        """The caller behind a secret as it came in a header.

        Raises:
            AuthenticationFailed: unknown, revoked or expired, or its session has ended.
            Overloaded: too many that are unknown come at once.

        """
        digest = digest_of(secret)
        cached = self._cache.get(digest)
        if cached is not None:
            return cached[1] if cached[0] > time.monotonic() else await self._ask(secret, digest)
        self._refuse_again(digest)
        try:
            async with asyncio.timeout(_STRANGERS_WAIT_SECONDS):
                await self._strangers.acquire()
        except TimeoutError:
            raise Overloaded("too many requests with unknown keys at once; try again") from None
        try:
            # Others with the same secret may have been before us.
            self._refuse_again(digest)
            cached = self._cache.get(digest)
            return cached[1] if cached is not None else await self._ask(secret, digest)
        finally:
            self._strangers.release()

    def _refuse_again(self, digest: bytes) -> None:
        refused = self._refused.get(digest)
        if refused is not None and refused[0] > time.monotonic():
            raise AuthenticationFailed(refused[1])

    async def _ask(self, secret: bytes, digest: bytes) -> Caller:
        now = time.monotonic()
        try:
            caller, seconds = await self._look_up(secret, digest)
        except AuthenticationFailed as error:
            self._cache.pop(digest, None)
            if len(self._refused) >= _CACHE_ENTRIES:
                self._refused.clear()
            self._refused[digest] = (time.monotonic() + _REFUSED_SECONDS, error.message)
            raise
        if len(self._cache) >= _CACHE_ENTRIES:
            self._cache.clear()
        self._cache[digest] = (now + min(seconds, _CACHE_SECONDS), caller)
        return caller

    async def _look_up(self, secret: bytes, digest: bytes) -> tuple[Caller, float]:
        """The caller, and the seconds that the credential has left at most."""
        if self._bootstrap is not None and hmac.compare_digest(digest, self._bootstrap):
            row = await self._database.fetch_one(queries.FIND_KEY_BY_ID, {"key_id": ids.BOOTSTRAP_API_KEY_ID})
        elif secret.startswith(SESSION_TOKEN_TAG.encode()) and (
            rows := await self._database.fetch_all(queries.FIND_SESSION_TOKEN, {"secret_sha256": digest})
        ):
            return _session_caller(rows)
        else:
            row = await self._database.fetch_one(queries.FIND_KEY, {"secret_sha256": digest})
            if row is not None and not hmac.compare_digest(bytes(row["secret_sha256"]), digest):
                row = None
        if row is None or row["revoked_at"] is not None:
            raise AuthenticationFailed(_REFUSAL)
        return Caller(row["workspace_id"], Actor(API_KEY, row["id"])), _CACHE_SECONDS


def _session_caller(rows: Sequence[Row]) -> tuple[Caller, float]:
    token = rows[0]
    seconds = _seconds_left(token)
    if seconds <= 0:
        raise AuthenticationFailed(_ENDED)
    stores = {row["store_id"]: row["access"] == READ_WRITE for row in rows if row["store_id"] is not None}
    scope = SessionScope(token["session_id"], token["id"], stores)
    return Caller(token["workspace_id"], Actor(SESSION, token["session_id"]), scope), seconds


def _seconds_left(token: Row) -> float:
    """Of a session's token; 0 or less if it is no longer valid."""
    if token["revoked_at"] is not None or token["archived_at"] is not None:
        return 0.0
    left: float = (token["expires_at"] - clock.now()) / clock.MICROSECONDS_PER_SECOND
    return left
