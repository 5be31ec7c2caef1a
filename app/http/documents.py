"""What the API says of itself in the OpenAPI document: parameters, refusals, and the shapes of texts.

Nothing here checks a request: the limits in a schema repeat those of `app.contract`, which refuses with better words.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NotRequired, TypeVar

from fastapi import Body, Depends, Header, Path, Query, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from pydantic import ConfigDict, Field, GetJsonSchemaHandler, TypeAdapter, with_config
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from typing_extensions import TypedDict

from app.contract import ids
from app.contract.actors import Caller
from app.contract.limits import CONTENT_MAX_BYTES, PATH_MAX_BYTES, PATH_MAX_SEGMENTS
from app.http.empty import EmptyBody

__all__ = [
    "AgentId",
    "AgentIdText",
    "Body",
    "CallerParameter",
    "ContentDigest",
    "ContentSize",
    "ContentText",
    "EnvironmentId",
    "EnvironmentIdText",
    "ErrorEnvelope",
    "MemoryId",
    "MemoryIdText",
    "MemoryPath",
    "NoBody",
    "Omittable",
    "Query",
    "SessionId",
    "SessionIdText",
    "SessionTokenId",
    "SessionTokenIdText",
    "StoreId",
    "StoreIdText",
    "Timestamp",
    "VersionId",
    "VersionIdText",
    "answers",
    "ignoring",
    "shape",
]

T = TypeVar("T")


class _NeverNull:
    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        (kind,) = [kind for kind in schema.pop("anyOf") if kind != {"type": "null"}]
        return {**kind, **schema}


Omittable = Annotated[T | None, _NeverNull()]
"""None if it was not sent: in a query, in a header or as a body there is no null."""

# Texts


def shape(**keywords: Any) -> Any:
    """Keywords of JSON Schema for a field, for the document alone."""
    return Field(json_schema_extra=keywords)


def _tagged(tag: str) -> str:
    return f"^{tag}_01[1-9A-HJ-NP-Za-km-z]{{22}}$"


_CONTROLS = r"\u0000-\u001f\u007f-\u009f"
_SEGMENT = rf"(?!\.{{1,2}}(/|$))[^/{_CONTROLS}\u2028\u2029]+"

NO_CONTROLS = rf"^[^{_CONTROLS}]*$"
NO_NULLS = r"^[^\u0000]*$"
PATH_PATTERN = rf"^(/{_SEGMENT}){{1,{PATH_MAX_SEGMENTS}}}$"
DIRECTORY_PATTERN = rf"^/({_SEGMENT}/){{0,{PATH_MAX_SEGMENTS}}}$"
PREFIX_PATTERN = rf"^(/({_SEGMENT}/){{0,{PATH_MAX_SEGMENTS}}})?$"
PATH_RULES = (
    "Starts with `/`; 1 to 20 segments, none empty, `.` or `..`; no control or format characters; "
    "Unicode NFC; at most 1,024 bytes of UTF-8."
)

StoreIdText = Annotated[str, shape(pattern=_tagged(ids.STORE))]
MemoryIdText = Annotated[str, shape(pattern=_tagged(ids.MEMORY))]
VersionIdText = Annotated[str, shape(pattern=_tagged(ids.VERSION))]
AgentIdText = Annotated[str, shape(pattern=_tagged(ids.AGENT))]
EnvironmentIdText = Annotated[str, shape(pattern=_tagged(ids.ENVIRONMENT))]
SessionIdText = Annotated[str, shape(pattern=_tagged(ids.SESSION))]
SessionTokenIdText = Annotated[str, shape(pattern=_tagged(ids.SESSION_TOKEN))]
MemoryPath = Annotated[
    str,
    Field(description=PATH_RULES, json_schema_extra={"maxLength": PATH_MAX_BYTES, "pattern": PATH_PATTERN}),
]
ContentText = Annotated[
    str,
    Field(
        description="Any UTF-8 text of at most 102,400 bytes.",
        json_schema_extra={"maxLength": CONTENT_MAX_BYTES},
    ),
]
ContentSize = Annotated[int, shape(minimum=0, maximum=CONTENT_MAX_BYTES)]
ContentDigest = Annotated[str, shape(pattern="^[0-9a-f]{64}$")]
Timestamp = Annotated[str, shape(format="date-time", pattern="Z$")]

# Parameters

_api_key = APIKeyHeader(name="x-api-key", scheme_name="x-api-key", auto_error=False, description="An API key.")
_bearer = HTTPBearer(
    scheme_name="bearer",
    auto_error=False,
    description="An API key or a session's token; it wins over `x-api-key` if both are there.",
)


def _authenticated(
    api_key: Annotated[str | None, Security(_api_key)],
    bearer: Annotated[Any, Security(_bearer)],
    anthropic_version: Annotated[
        Omittable[str],
        Header(description="`2023-06-01` or `2026-10-21`. Required with `MEMSTORE_STRICT_BETA` only."),
    ] = None,
    anthropic_beta: Annotated[
        Omittable[str],
        Header(description="`agent-memory-2026-07-22`. Required with `MEMSTORE_STRICT_BETA` only."),
    ] = None,
    anthropic_workspace_id: Annotated[
        Omittable[str],
        Header(description="The workspace the key belongs to, as the answers' header of this name gives it."),
    ] = None,
    beta: Annotated[Omittable[str], Query(description="Ignored; old SDKs send it.", deprecated=True)] = None,
) -> Caller:
    raise AssertionError("calls of the API are answered by app.server.gateway")


CallerParameter = Annotated[Caller, Depends(_authenticated)]
RetryCount = Annotated[
    Omittable[str],
    Header(
        alias="x-stainless-retry-count",
        description="Which repetition of one request this is; the SDKs send it. From 1 on, what the same author did "
        "within the last 15 minutes, exactly as it is asked for again, is answered with success.",
    ),
]


def is_retry(retry_count: str | None) -> bool:
    """Whether a client sends its request again, because it had no answer or a 5xx."""
    return retry_count is not None and retry_count.isdecimal() and retry_count.strip("0") != ""


StoreId = Annotated[
    str,
    Path(description="ID of the memory store.", json_schema_extra={"pattern": _tagged(ids.STORE)}),
]
MemoryId = Annotated[
    str,
    Path(description="ID of the memory.", json_schema_extra={"pattern": _tagged(ids.MEMORY)}),
]
VersionId = Annotated[
    str,
    Path(description="ID of the memory version.", json_schema_extra={"pattern": _tagged(ids.VERSION)}),
]
AgentId = Annotated[
    str,
    Path(description="ID of the agent.", json_schema_extra={"pattern": _tagged(ids.AGENT)}),
]
EnvironmentId = Annotated[
    str,
    Path(description="ID of the environment.", json_schema_extra={"pattern": _tagged(ids.ENVIRONMENT)}),
]
SessionId = Annotated[
    str,
    Path(description="ID of the session.", json_schema_extra={"pattern": _tagged(ids.SESSION)}),
]
SessionTokenId = Annotated[
    str,
    Path(description="ID of the session token.", json_schema_extra={"pattern": _tagged(ids.SESSION_TOKEN)}),
]
NoBody = Annotated[Omittable[EmptyBody], Body()]
"""Nothing, or `{}`."""


def ignoring(*names: str) -> dict[str, Any]:
    """The `openapi_extra` of a route that accepts these query parameters and does nothing with them."""
    described = [
        {
            "name": name,
            "in": "query",
            "required": False,
            "deprecated": True,
            "schema": {"type": "string"},
            "description": "Ignored; it had a meaning in an earlier version of the API.",
        }
        for name in names
    ]
    return {"x-ignored-query": list(names), "parameters": described}


# Answers

_RequestId = Annotated[str, shape(pattern=_tagged(ids.REQUEST))]


class ErrorCause(TypedDict):
    """A finer name of a cause: the vendor's, and `legal_hold`, which is ours."""

    error_code: Literal["environment_archived", "invalid_config_type_change", "legal_hold"]


class ErrorDetail(TypedDict):
    """What was wrong. The two `conflicting_` fields come with `memory_path_conflict_error` only.

    `details` comes where the cause has a finer name. `erased` comes with `not_found_error` where the memory or the
    store was erased (`memstore forget`), and so must not be made again from a copy.
    """

    type: Literal[
        "invalid_request_error",
        "authentication_error",
        "permission_error",
        "not_found_error",
        "conflict_error",
        "memory_path_conflict_error",
        "memory_precondition_failed_error",
        "request_too_large",
        "rate_limit_error",
        "api_error",
        "overloaded_error",
    ]
    message: str
    conflicting_memory_id: NotRequired[MemoryIdText]
    conflicting_path: NotRequired[MemoryPath]
    details: NotRequired[ErrorCause]
    erased: NotRequired[Literal[True]]


@with_config(
    ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "error",
                    "error": {
                        "type": "memory_path_conflict_error",
                        "message": "path '/notes' conflicts with the memory at '/notes/customer.md': "
                        "a path can't be used twice, and can't be both a memory and a directory",
                        "conflicting_memory_id": "mem_011ChEGEtPoE7tx6byHfwJet",
                        "conflicting_path": "/notes/customer.md",
                    },
                    "request_id": "req_011ChEGEtPoE7tx6bye3MeHW",
                }
            ]
        }
    )
)
class ErrorEnvelope(TypedDict):
    """Every refusal. `request_id` is the `request-id` header's value."""

    type: Literal["error"]
    error: ErrorDetail
    request_id: _RequestId


_MEANINGS: dict[int | str, str] = {
    400: "`invalid_request_error`: the request breaks a rule; the message says which.",
    401: "`authentication_error`: no key or token, or one that is unknown, revoked or expired.",
    403: "`permission_error`: the key or token may not do this, or `anthropic-workspace-id` names another workspace.",
    404: "`not_found_error`: not there, or in another workspace.",
    409: "`conflict_error`, `memory_path_conflict_error` or `memory_precondition_failed_error`; "
    "not worth a retry as it is.",
    413: "`request_too_large`: the body is over the limit.",
    429: "`rate_limit_error`: the key has used up its share of a minute; `retry-after` says when to try again.",
    500: "`api_error`: a fault of the service, logged under the request's ID.",
    503: "`api_error`: the database or the blob store does not answer; `retry-after` says when to try again.",
    529: "`overloaded_error`: too much work at once; `retry-after` says when to try again.",
    "default": "Any other refusal. With 405 `invalid_request_error`, for a method that the path does not have, "
    "comes the header `allow`. 408 and 431 are about requests that come too slowly, or whose head is too large.",
}
# Without a "default" FastAPI would promise its own 422, which no route answers.
_ALWAYS: tuple[int | str, ...] = (400, 401, 403, 404, 429, 500, 503, 529, "default")

_REQUEST_ID = {
    "description": "ID of this request; name it when you ask for help.",
    "required": True,
    "schema": {"type": "string", "pattern": _tagged(ids.REQUEST)},
}
_WORKSPACE_ID = {
    "description": "The workspace of the key.",
    "required": True,
    "schema": {"type": "string", "pattern": _tagged(ids.WORKSPACE)},
}
_RETRY_AFTER = {
    "retry-after": {"description": "Seconds.", "required": True, "schema": {"type": "integer", "minimum": 1}}
}
_OWN_HEADERS: dict[int | str, dict[str, Any]] = {
    409: {
        "x-should-retry": {
            "description": "Tells the SDKs not to send the same again.",
            "required": True,
            "schema": {"type": "string", "const": "false"},
        }
    },
    429: _RETRY_AFTER,
    503: _RETRY_AFTER,
    529: _RETRY_AFTER,
    "default": {"allow": {"description": "With 405: the methods of this path.", "schema": {"type": "string"}}},
}


_ENVELOPE = f"#/components/schemas/{ErrorEnvelope.__name__}"


def _headers(status: int | str) -> dict[str, Any]:
    headers = {"request-id": _REQUEST_ID}
    if status != 401:
        # Where the look-up of the key itself fails, the workspace is not known.
        known = isinstance(status, int) and status < 500
        headers["anthropic-workspace-id"] = _WORKSPACE_ID | {"required": known}
    return headers | _OWN_HEADERS.get(status, {})


def answers(
    *statuses: int, headers: Mapping[str, Any] | None = None, with_body: bool = True
) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: success, the refusals that every route has, and these.

    headers: further headers of success. with_body: False for HEAD.
    """
    described: dict[int | str, dict[str, Any]] = {
        200: {"description": "Success.", "headers": {**_headers(200), **(headers or {})}}
    }
    for status in _MEANINGS:
        if status in _ALWAYS or status in statuses:
            described[status] = {"description": _MEANINGS[status], "headers": _headers(status)}
            if with_body:
                described[status]["content"] = {"application/json": {"schema": {"$ref": _ENVELOPE}}}
    return described


def add_refusals(document: dict[str, Any]) -> None:
    """Put the schemas that `answers` refers to into a document, once for all routes."""
    envelope = TypeAdapter(ErrorEnvelope).json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
    schemas = document["components"]["schemas"]
    schemas |= {**envelope.pop("$defs"), ErrorEnvelope.__name__: envelope}
    document["components"]["schemas"] = dict(sorted(schemas.items()))
