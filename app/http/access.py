"""What a session's token may do over HTTP, decided in one place, before the route runs.

A session's token is refused everywhere but on the routes that are marked as open to it, and there it reaches only
its own session and the stores attached to that. A new route is closed until somebody marks it.
"""

from collections.abc import Mapping
from typing import Any, Literal

from app.contract.actors import SessionScope
from app.contract.errors import NotFound, PermissionDenied

SessionAccess = Literal["read", "write"]

_MARK = "x-session-token"
STORE_PARAMETER = "memory_store_id"
SESSION_PARAMETER = "session_id"


def open_to_sessions(access: SessionAccess) -> dict[str, Any]:
    """The `openapi_extra` of a route that a session's token may call.

    access: "write" where it changes a store, which must then be attached `read_write`.
    """
    return {_MARK: access}


def session_access(openapi_extra: Mapping[str, Any] | None, template: str) -> SessionAccess | None:
    """What a route's `openapi_extra` opens to sessions; None: nothing.

    Raises:
        ValueError: the mark is wrong, or the path names neither a store nor a session that could be checked.

    """
    access = (openapi_extra or {}).get(_MARK)
    if access is None:
        return None
    if access not in ("read", "write"):
        raise ValueError(f"{template}: {_MARK} must be 'read' or 'write', not {access!r}")
    scoped_by = (STORE_PARAMETER,) if access == "write" else (STORE_PARAMETER, SESSION_PARAMETER)
    if not any(f"{{{name}}}" in template for name in scoped_by):
        raise ValueError(f"{template}: open to sessions, but its path has no {' or '.join(scoped_by)} to be checked")
    checked: SessionAccess = access
    return checked


def check(access: SessionAccess | None, path: Mapping[str, str], scope: SessionScope) -> None:
    """Whether a session's token may call a route with these path parameters.

    Raises:
        PermissionDenied: the route is closed to sessions, or changes a store that is attached `read_only`.
        NotFound: another session, or a store that is not attached.

    """
    if access is None:
        raise PermissionDenied("a session token may not do this: it reads and writes its session's memory stores only")
    session_id = path.get(SESSION_PARAMETER)
    if session_id is not None and session_id != scope.session_id:
        raise NotFound(f"session {session_id!r} was not found")
    store_id = path.get(STORE_PARAMETER)
    if store_id is None:
        return
    if store_id not in scope.stores:
        raise NotFound(f"memory store {store_id!r} was not found")
    if access == "write" and not scope.stores[store_id]:
        raise PermissionDenied(f"memory store {store_id!r} is attached to this session as read_only")
