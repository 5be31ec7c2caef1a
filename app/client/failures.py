"""What can go wrong in a call of the API.

    ApiError
    ├── Away             no answer, or one that says "later" (408, 429, 5xx): try again
    │   └── TimedOut     none in time
    ├── Missing          404; `erased` if what was asked for was erased
    ├── PathTaken        409 memory_path_conflict_error
    ├── Changed          409 memory_precondition_failed_error
    ├── Unauthorized     401: the token is unknown, expired or revoked
    ├── Forbidden        403: the token may not do this
    ├── Held             400, error code legal_hold: the store is under legal hold, and keeps everything
    └── Rejected         everything else that will be refused again

`app.mount.sync.errors` is what becomes of them for a writer.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, TypeGuard

from app.contract import paths
from app.contract.errors import InvalidRequest
from app.contract.showing import escaped

ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
"""What an ID looks like, whatever its kind: it can stand in a URL as it is."""
_LATER = (408, 425, 429)


class ApiError(Exception):
    """A call that did not do what it should. `status` is the HTTP status, 0 when there was no answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Away(ApiError):
    """The server does not answer, or asks to come back later. Whether it did the work is not known."""

    def __init__(self, status: int, message: str, retry_after: float = 0.0) -> None:
        super().__init__(status, message)
        self.retry_after = retry_after
        """Seconds the server asks for; 0 if it does not say."""


class TimedOut(Away):
    """No answer within the time for one."""


class Missing(ApiError):
    """No such store, memory or route."""

    def __init__(self, status: int, message: str, *, erased: bool = False) -> None:
        super().__init__(status, message)
        self.erased = erased
        """It was erased: nothing of it may be kept, or come back."""


class PathTaken(ApiError):
    """A memory at the path, above it or below it is in the way."""

    def __init__(self, status: int, message: str, memory_id: str, path: str) -> None:
        super().__init__(status, message)
        self.conflicting_memory_id = memory_id
        self.conflicting_path = path


class Changed(ApiError):
    """The memory's content is not the expected one."""


class Unauthorized(ApiError):
    """The token is not valid."""


class Forbidden(ApiError):
    """The token is valid and may not do this."""


class Held(ApiError):
    """The store is under legal hold, and nothing of it may be lost."""


class Rejected(ApiError):
    """Refused for another reason."""


def failure(status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """The exception for an answer whose status is not 2xx."""
    error: dict[str, Any] = {}
    message = f"HTTP status {status}"
    try:
        found = json.loads(body)["error"]
        if isinstance(found, dict):
            error, message = found, escaped(str(found["message"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    if status >= 500 or status in _LATER:
        return Away(status, message, _seconds(headers.get("retry-after")))
    if status == 409:
        memory_id, path = error.get("conflicting_memory_id"), error.get("conflicting_path")
        if _is_id(memory_id) and _is_path(path):
            return PathTaken(status, message, memory_id, path)
        if error.get("type") == "memory_precondition_failed_error":
            return Changed(status, message)
    details = error.get("details")
    if isinstance(details, dict) and details.get("error_code") == "legal_hold":
        return Held(status, message)
    if status in (404, 405):
        return Missing(status, message, erased=error.get("erased") is True)
    kinds = {401: Unauthorized, 403: Forbidden}
    return kinds.get(status, Rejected)(status, message)


def _seconds(text: str | None) -> float:
    try:
        seconds = float(text or 0)
    except ValueError:
        return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def _is_id(found: Any) -> TypeGuard[str]:
    return isinstance(found, str) and ID.fullmatch(found) is not None


def _is_path(found: Any) -> TypeGuard[str]:
    try:
        return isinstance(found, str) and paths.check(found) == found
    except InvalidRequest:
        return False
