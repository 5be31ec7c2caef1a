"""The error envelope (contract, 4.1) and the one way that validation problems become words."""

from collections.abc import Sequence
from typing import Any

import orjson
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from app.contract.errors import InvalidRequest, MemstoreError

_MESSAGE_CHARACTERS = 1_500


def envelope(error: MemstoreError, request_id: str) -> bytes:
    """The body of a refusal."""
    return orjson.dumps(
        {
            "type": "error",
            "error": {"type": error.type, "message": _shortened(error.message), **error.fields()},
            "request_id": request_id,
        },
        default=str,
    )


def _shortened(message: str) -> str:
    """A message that repeats what the caller sent need not repeat all of it."""
    return message if len(message) <= _MESSAGE_CHARACTERS else f"{message[:_MESSAGE_CHARACTERS]} …"


def _place(location: Sequence[Any]) -> str:
    return ".".join(str(part) for part in location)


def _readable(problem: ErrorDetails) -> str:
    if problem["type"] == "json_invalid":
        return f"the request body is not valid JSON: {problem['ctx']['error']}"
    place = _place(problem["loc"])
    if problem["type"] in ("model_type", "model_attributes_type") and not place:
        return "the request body must be a JSON object"
    return f"{place}: {problem['msg']}" if place else problem["msg"]


def bad_body(error: ValidationError) -> InvalidRequest:
    """The refusal of a body that does not fit its model: `field: what is wrong`, each problem on its own."""
    problems = error.errors(include_url=False, include_input=False)
    return InvalidRequest("; ".join(_readable(problem) for problem in problems[:5]))


def bad_query(error: ValidationError) -> InvalidRequest:
    """The refusal of query parameters that do not fit their model."""
    problems = error.errors(include_url=False, include_input=False)
    for problem in problems:
        if problem["type"] == "extra_forbidden":
            return InvalidRequest(f"unexpected query parameter: {_place(problem['loc'])}")
    return InvalidRequest("; ".join(_readable(problem) for problem in problems[:5]))
