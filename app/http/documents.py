"""What every route of the API says of itself in the OpenAPI document."""

from typing import Annotated, Any

from fastapi import Body, Depends, Path, Query, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from typing_extensions import TypedDict

from app.contract.actors import Caller

_api_key = APIKeyHeader(name="x-api-key", auto_error=False, description="An API key.")
_bearer = HTTPBearer(auto_error=False, description="An API key; it wins over `x-api-key`.")


def _authenticated(
    api_key: Annotated[str | None, Security(_api_key)], bearer: Annotated[Any, Security(_bearer)]
) -> Caller:
    raise AssertionError("calls of the API are answered by app.http.gateway")


CallerParameter = Annotated[Caller, Depends(_authenticated)]
StoreId = Annotated[str, Path(description="ID of the memory store (`memstore_…`).")]
MemoryId = Annotated[str, Path(description="ID of the memory (`mem_…`).")]
VersionId = Annotated[str, Path(description="ID of the memory version (`memver_…`).")]

__all__ = ["Body", "CallerParameter", "ErrorEnvelope", "MemoryId", "Query", "StoreId", "VersionId", "errors"]


class ErrorDetail(TypedDict, total=False):
    """What was wrong. The two `conflicting_` fields come with `memory_path_conflict_error` only."""

    type: str
    message: str
    conflicting_memory_id: str
    conflicting_path: str


class ErrorEnvelope(TypedDict):
    """Every refusal. `request_id` is the `request-id` header's value."""

    type: str
    error: ErrorDetail
    request_id: str


_MEANINGS = {
    400: "`invalid_request_error`: the request breaks a rule; the message says which.",
    401: "`authentication_error`: no key, an unknown or a revoked one.",
    403: "`permission_error`: the key may not do this, or `anthropic-workspace-id` names another workspace.",
    404: "`not_found_error`: not there, or in another workspace.",
    409: "`memory_path_conflict_error` or `memory_precondition_failed_error`; not worth a retry as it is.",
    413: "`request_too_large`: the body is over the limit.",
    500: "`api_error`: a fault of the service, logged under the request's ID.",
    503: "`api_error`: the database or the blob store does not answer; `retry-after` says when to try again.",
    529: "`overloaded_error`: too much work at once; `retry-after` says when to try again.",
}
_ALWAYS = (400, 401, 403, 404, 500, 503, 529)


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: the errors every route has, and these."""
    described: dict[int | str, dict[str, Any]] = {}
    for status in sorted({*_ALWAYS, *statuses}):
        headers: dict[str, Any] = {"request-id": {"schema": {"type": "string"}}}
        if status in (503, 529):
            headers["retry-after"] = {"schema": {"type": "integer"}, "description": "Seconds."}
        described[status] = {"model": ErrorEnvelope, "description": _MEANINGS[status], "headers": headers}
    return described
