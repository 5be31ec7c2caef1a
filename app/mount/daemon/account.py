"""What the daemon asks the server before a store is open: a session's attachments, and a token to open them with.

With an API key, the daemon makes itself a token of the session, which can do only what the session's agent may,
and makes the next one before it expires; the key is used for nothing else. Where the server has no such tokens (the
vendor's own API), the key itself opens the stores. With a token, that token does it all, until it expires.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import urllib3

from app.client.credentials import authorization
from app.client.failures import Away, failure
from app.contract.actors import READ_ONLY
from app.contract.showing import escaped
from app.contract.slugs import is_slug, slug
from app.mount.door import wire
from app.mount.sync.errors import MountError

_TIMEOUT = urllib3.Timeout(connect=5, read=30)
_SHORT_TIMEOUT = urllib3.Timeout(connect=2, read=3)
"""For what is polite and not needed."""
_TOKEN_SECONDS = 86_400
_ANSWER_MAX_BYTES = 1 << 20
_RENEW_BELOW = 0.5
"""A token is renewed when less than this part of its life is left, so that an outage of half a life does no harm."""
_PAUSE_AFTER_FAILURE = 15.0
"""Seconds between two attempts to renew a token that still serves."""

_HEADERS = {"anthropic-version": "2023-06-01", "anthropic-beta": "managed-agents-2026-04-01"}


class ServerAway(MountError):
    """The server does not answer, or not now; it may later."""


class NoAccess(MountError):
    """The server refuses the credential, or it no longer opens this."""


class NotThere(NoAccess):
    """The server has no such thing, or not for this credential."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where the server is and who we are: an API key, or a token, which wins."""

    base_url: str
    api_key: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    @property
    def secret(self) -> str:
        """The one to use."""
        secret = self.token or self.api_key
        assert secret is not None, "credentials without a secret are refused where they are read"
        return secret


@dataclass(frozen=True, slots=True)
class Attachment:
    """One store to open: of a session, or by itself."""

    store_id: str
    name: str
    slug: str
    """The directory's name under the root."""
    read_only: bool

    @classmethod
    def of_json(cls, item: dict[str, Any]) -> "Attachment":
        """What was written down. Raises ValueError or TypeError if it is none."""
        found = cls(**item)
        if not is_slug(found.slug):
            raise ValueError(found.slug)
        return found


class Account:
    """One server and one credential. Thread-safe."""

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials
        self._pool = urllib3.PoolManager(num_pools=1, maxsize=2, retries=False)

    def session_attachments(self, session_id: str) -> list[Attachment]:
        """The memory stores attached to a session, in its order.

        Raises:
            MountError: no such session, it is archived, it has no store attached, or the server does not answer.

        """
        session = self._request("GET", f"/v1/sessions/{quote(session_id, safe='')}", f"the session {session_id}")
        if session.get("archived_at"):
            raise NoAccess(f"the session {session_id} is archived: its stores can no longer be opened")
        with self._read():
            attachments = [_attachment(resource) for resource in wire.stores_of(session)]
        if not attachments:
            raise NoAccess(
                f"the session {session_id} has no memory store attached; stores are attached when a session is made"
            )
        return attachments

    def store(self, store_id: str, *, read_only: bool) -> Attachment:
        """A store by itself, without a session; its directory is named as a session would name it.

        Raises:
            MountError: no such store, or the server does not answer.

        """
        store = self._request("GET", f"/v1/memory_stores/{quote(store_id, safe='')}", f"the memory store {store_id}")
        with self._read():
            name = wire.name(store.get("name"))
        return Attachment(store_id, name, slug(name, store_id), read_only)

    def session_token(self, session_id: str) -> "SessionToken":
        """A token that opens the session's stores, and stays fresh.

        Raises:
            MountError: there is none.

        """
        return SessionToken(self, session_id)

    def make_token(self, session_id: str) -> tuple[str, str, float]:
        """Make a token: its ID, its secret, and how many seconds it is good for.

        Raises:
            NotThere: the server has no such session, or makes no tokens.

        """
        made = self._request(
            "POST",
            f"/v1/sessions/{quote(session_id, safe='')}/tokens",
            f"tokens of the session {session_id}",
            {"expires_in_seconds": _TOKEN_SECONDS},
        )
        with self._read():
            created, expires = (wire.nanoseconds(made.get(name)) for name in ("created_at", "expires_at"))
            return wire.identifier(made.get("id")), wire.secret(made.get("token")), max(0, expires - created) / 1e9

    def end_token(self, session_id: str, token_id: str) -> None:
        """Revoke a token."""
        path = f"/v1/sessions/{quote(session_id, safe='')}/tokens/{quote(token_id, safe='')}"
        self._request("DELETE", path, f"token {token_id}", timeout=_SHORT_TIMEOUT)

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def _request(
        self, method: str, path: str, what: str, body: dict[str, Any] | None = None, timeout: urllib3.Timeout = _TIMEOUT
    ) -> dict[str, Any]:
        """Ask the server; `what` names in a refusal's sentence what was asked for."""
        url = self.credentials.base_url
        headers = {**_HEADERS, **authorization(self.credentials.secret)}
        try:
            answer = self._pool.request(
                method, url + path, headers=headers, timeout=timeout, json=body, preload_content=False
            )
            try:
                data = answer.read(_ANSWER_MAX_BYTES + 1, decode_content=False)
            finally:
                answer.close()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ServerAway(f"{url} does not answer: {escaped(str(error))}") from error
        if len(data) > _ANSWER_MAX_BYTES:
            raise ServerAway(f"{url} answers with more than {_ANSWER_MAX_BYTES:,} bytes")
        if answer.status != 200:
            raise _refusal(url, self.credentials, what, answer.status, data)
        with self._read():
            return wire.document(data)

    @contextmanager
    def _read(self) -> Iterator[None]:
        """Say of an answer that is none of this API whose it is."""
        try:
            yield
        except Away as error:
            raise MountError(f"{self.credentials.base_url}: {error.message}") from error


class SessionToken:
    """Calling it gives the secret to send now. It renews itself when asked for late in its life.

    Thread-safe. While one caller renews, the others get the present secret. Where there is none they wait, and share
    his failure: a server that hangs would else keep each of them waiting in turn.
    """

    def __init__(self, account: Account, session_id: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Make the first token.

        clock: seconds that pass, for tests.

        Raises:
            MountError: the server refused it. A server that does not answer is asked again at the first call.

        """
        self._account = account
        self._session_id = session_id
        self._clock = clock
        self._lock = threading.Lock()
        self._attempts = 0
        self._failure: MountError | None = None
        """Of the last attempt."""
        self._made: list[tuple[str, float]] = []
        """Those not yet revoked: ID, and when it expires."""
        self._secret: str | None = account.credentials.token
        self._renew_at = float("inf") if self._secret else 0.0
        self._expires_at = float("inf") if self._secret else 0.0
        if self._secret is None:
            try:
                self._renew()
            except ServerAway:
                self._renew_at = 0.0

    def __call__(self) -> str:
        """The secret.

        Raises:
            Away: there is none yet, or it has expired, and the server does not give another now.

        """
        attempts = self._attempts
        if self._clock() < self._renew_at:
            assert self._secret is not None
            return self._secret
        still_good = self._secret is not None and self._clock() < self._expires_at
        if self._lock.acquire(blocking=not still_good):
            try:
                if self._clock() >= self._renew_at:
                    self._renew_unless_failed(attempts)
            except MountError as error:
                self._renew_at = self._clock() + _PAUSE_AFTER_FAILURE if still_good else 0.0
                if not still_good:
                    raise Away(0, f"no token for the session {self._session_id}: {error}") from error
            finally:
                self._lock.release()
        assert self._secret is not None
        return self._secret

    def _renew_unless_failed(self, attempts: int) -> None:
        """attempts: how many had ended when the caller came."""
        if self._attempts != attempts and self._failure is not None:
            raise self._failure
        try:
            self._failure = None
            self._renew()
        except MountError as error:
            self._failure = error
            raise
        finally:
            self._attempts += 1

    def use(self, account: Account) -> None:
        """Renew with this account from now on: its credential may be newer than that of the first."""
        self._account = account

    def revoke(self) -> None:
        """End the tokens made here, as far as the server answers; they expire by themselves otherwise."""
        with self._lock:
            while self._made:
                token_id, _ = self._made.pop()
                try:
                    self._account.end_token(self._session_id, token_id)
                except NotThere:
                    continue  # the session was deleted, and its tokens with it
                except MountError:
                    return

    def _renew(self) -> None:
        try:
            token_id, secret, life = self._account.make_token(self._session_id)
        except NotThere:
            if self._secret is not None:
                raise
            self._account.session_attachments(self._session_id)  # is it the session that is not there?
            # Not this project's server: it has sessions, but no tokens for them.
            self._secret = self._account.credentials.api_key
            self._renew_at = self._expires_at = float("inf")
            return
        now = self._clock()
        # Those before are not revoked yet: an event stream may still be using one.
        self._made = [(known, until) for known, until in self._made if until > now] + [(token_id, now + life)]
        self._secret = secret
        self._expires_at = now + life
        self._renew_at = now + life * (1 - _RENEW_BELOW)


def _refusal(url: str, credentials: Credentials, what: str, status: int, body: bytes) -> MountError:
    """Why the server said no, in a sentence that names what a person can change."""
    said = failure(status, {}, body).message
    which = "MEMSTORE_TOKEN" if credentials.token else "MEMSTORE_API_KEY"
    if status == 401:
        return NoAccess(f"{url} does not accept {which}: {said}")
    if status == 403:
        return NoAccess(f"{which} gives no access to {what} on {url}: {said}")
    if status == 404:
        return NotThere(f"{url} has no {what.removeprefix('the ')} for {which}: {said}")
    if status == 429 or status >= 500:
        return ServerAway(f"{url} can't answer now: {said}")
    return MountError(f"{url} refused {what}: {said}")


def distinct(attachments: Iterable[Attachment]) -> list[Attachment]:
    """The attachments, checked: every slug can be a directory's name, and no two are the same.

    Raises:
        MountError: one would leave the root, or two stores have one directory.

    """
    checked = list(attachments)
    for attachment in checked:
        if not is_slug(attachment.slug):
            name = escaped(attachment.slug)
            raise MountError(f"the store {attachment.store_id} has no usable directory name: {name!r}")
    if len({attachment.slug for attachment in checked}) != len(checked):
        raise MountError("two of the session's stores have the same mount path")
    return checked


def _attachment(resource: dict[str, Any]) -> Attachment:
    return Attachment(
        store_id=wire.identifier(resource.get("memory_store_id")),
        name=wire.name(resource.get("name")),
        slug=wire.directory(resource.get("mount_path")),
        read_only=resource.get("access") == READ_ONLY,
    )
