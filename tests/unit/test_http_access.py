"""The mark that opens a route to sessions: closed without it, and refused where nothing could be checked."""

from typing import Any

import pytest

from app.contract.actors import SessionScope
from app.contract.errors import NotFound, PermissionDenied
from app.http.access import SessionAccess, check, open_to_sessions, session_access

STORE = "/v1/memory_stores/{memory_store_id}"
SCOPE = SessionScope("sesn_1", "stok_1", {"memstore_rw": True, "memstore_ro": False})


@pytest.mark.parametrize("extra", [None, {}, {"x-ignored-query": ["order"]}])
def test_a_route_without_the_mark_is_closed(extra: dict[str, Any] | None) -> None:
    assert session_access(extra, STORE) is None
    with pytest.raises(PermissionDenied):
        check(None, {"memory_store_id": "memstore_rw"}, SCOPE)


@pytest.mark.parametrize("access", ["read", "write"])
def test_the_mark_opens_a_route_below_a_store(access: SessionAccess) -> None:
    assert session_access(open_to_sessions(access), STORE) == access
    assert session_access({"x-ignored-query": []} | open_to_sessions(access), f"{STORE}/memories") == access


@pytest.mark.parametrize(
    ("extra", "template"),
    [
        (open_to_sessions("read"), "/v1/memory_stores"),
        (open_to_sessions("read"), "/v1/agents/{agent_id}"),
        (open_to_sessions("write"), "/v1/sessions/{session_id}"),
        ({"x-session-token": "both"}, STORE),
        ({"x-session-token": True}, STORE),
    ],
)
def test_a_mark_on_a_route_that_can_not_be_checked_is_an_error_at_the_start(
    extra: dict[str, Any], template: str
) -> None:
    with pytest.raises(ValueError, match=r"memory_store_id|must be 'read' or 'write'"):
        session_access(extra, template)


@pytest.mark.parametrize(
    ("access", "path", "refusal"),
    [
        ("read", {"memory_store_id": "memstore_rw"}, None),
        ("read", {"memory_store_id": "memstore_ro"}, None),
        ("read", {"memory_store_id": "memstore_other"}, NotFound),
        ("write", {"memory_store_id": "memstore_rw"}, None),
        ("write", {"memory_store_id": "memstore_ro"}, PermissionDenied),
        ("write", {"memory_store_id": "memstore_other"}, NotFound),
        ("read", {"session_id": "sesn_1"}, None),
        ("read", {"session_id": "sesn_2"}, NotFound),
        ("read", {"session_id": "sesn_1", "memory_store_id": "memstore_other"}, NotFound),
        ("read", {"session_id": "sesn_2", "memory_store_id": "memstore_rw"}, NotFound),
    ],
)
def test_an_open_route_reaches_the_own_session_and_its_stores(
    access: SessionAccess, path: dict[str, str], refusal: type[Exception] | None
) -> None:
    if refusal is None:
        check(access, path, SCOPE)
    else:
        with pytest.raises(refusal):
            check(access, path, SCOPE)
