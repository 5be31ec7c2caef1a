"""What every answer looks like: key sets, ID and time formats, and the error envelope.

The SDK's models fill absent keys with `None` and accept unknown ones, so shapes are checked on the JSON.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic import APIResponse

INVALID_REQUEST = "invalid_request_error"
PATH_CONFLICT = "memory_path_conflict_error"
PRECONDITION_FAILED = "memory_precondition_failed_error"

_TYPE_OF_STATUS = {
    400: INVALID_REQUEST,
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: INVALID_REQUEST,
    413: "request_too_large",
}

STORE_KEYS = {"id", "type", "name", "description", "metadata", "created_at", "updated_at", "archived_at"}
MEMORY_KEYS = {
    "id",
    "type",
    "memory_store_id",
    "memory_version_id",
    "path",
    "content",
    "content_size_bytes",
    "content_sha256",
    "created_at",
    "updated_at",
}
VERSION_KEYS = {
    "id",
    "type",
    "memory_store_id",
    "memory_id",
    "operation",
    "path",
    "content",
    "content_size_bytes",
    "content_sha256",
    "created_at",
    "created_by",
    "redacted_at",
    "redacted_by",
}

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")
SHA256 = re.compile(r"[0-9a-f]{64}")

STORE_ID = "memstore"
MEMORY_ID = "mem"
VERSION_ID = "memver"
API_KEY_ID = "apikey"
WORKSPACE_ID = "wrkspc"
REQUEST_ID = "req"


def is_id(value: object, tag: str) -> bool:
    """`<tag>_01` and base58 characters, 24 characters after the underscore."""
    return isinstance(value, str) and bool(re.fullmatch(rf"{tag}_01[1-9A-HJ-NP-Za-km-z]{{22}}", value))


def is_timestamp(value: object) -> bool:
    """RFC 3339 in UTC, with a `Z`."""
    return isinstance(value, str) and bool(TIMESTAMP.fullmatch(value))


def sha256(content: str) -> str:
    """The digest the API shows for a content."""
    return hashlib.sha256(content.encode()).hexdigest()


def body_of(response: APIResponse[Any]) -> dict[str, Any]:
    """The JSON object of a raw SDK answer."""
    body: dict[str, Any] = response.http_response.json()
    return body


def check_refusal(response: httpx2.Response, status: int, error_type: str | None = None) -> dict[str, Any]:
    """Assert the whole error envelope and hand out its `error` object."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("application/json")
    body = response.json()
    assert set(body) == {"type", "error", "request_id"}
    assert body["type"] == "error"
    assert is_id(body["request_id"], REQUEST_ID)
    assert response.headers["request-id"] == body["request_id"]
    error: dict[str, Any] = body["error"]
    assert error["type"] == (error_type or _TYPE_OF_STATUS[status])
    assert isinstance(error["message"], str)
    assert error["message"]
    if error["type"] == PATH_CONFLICT:
        assert set(error) == {"type", "message", "conflicting_memory_id", "conflicting_path"}
    else:
        assert set(error) == {"type", "message"}
    return error


class Refusal:
    """What `refused` caught: the `error` object of the envelope, and the response."""

    error: dict[str, Any]
    response: httpx2.Response


@contextmanager
def refused(status: int, error_type: str | None = None) -> Iterator[Refusal]:
    """Expect the SDK call inside to be refused with this status, in the right envelope."""
    refusal = Refusal()
    with pytest.raises(anthropic.APIStatusError) as caught:
        yield refusal
    refusal.response = caught.value.response
    refusal.error = check_refusal(refusal.response, status, error_type)
