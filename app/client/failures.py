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
├── ChangesExpired   changes that were asked for are gone; take a snapshot, and follow the store from there
└── Rejected         everything else that will be refused again
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, TypeGuard

from .showing import escaped

ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
"""What an ID looks like, whatever its kind: it can stand in a URL as it is."""
_LATER = (408, 425, 429)


class ApiError(Exception):
    """A call that did not do what it should. Its text is for people, and holds nothing that a terminal would obey."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status; 0 when there was no answer."""
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        """What it takes to carry it to another process, whatever its constructor asks for."""
        return _restored, (type(self), self.args, vars(self))


class Away(ApiError):
    """The server does not answer, or asks to come back later. Whether it did the work is not known."""

    def __init__(self, status: int, message: str, retry_after: float = 0.0, *, was_sent: bool = True) -> None:
        super().__init__(status, message)
        self.retry_after = retry_after
        """Seconds the server asks for; 0 if it does not say."""
        self.was_sent = was_sent
        """False where no connection came about: then the server did nothing."""


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


class ChangesExpired(ApiError):
    """Some of the changes that were asked for are gone. A snapshot tells what they came to."""

    def __init__(self, status: int, message: str, last_seq: int) -> None:
        super().__init__(status, message)
        self.last_seq = last_seq
        """The number of the store's newest change; what follows it can be followed."""


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
        if _is_id(memory_id) and isinstance(path, str) and path.startswith("/"):
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


def lost(error: Exception, *, timed_out: bool, was_sent: bool) -> Away:
    """The exception for an answer that did not come."""
    return (TimedOut if timed_out else Away)(0, escaped(f"{type(error).__name__}: {error}"), was_sent=was_sent)


def _restored(kind: type[ApiError], arguments: tuple[Any, ...], members: dict[str, Any]) -> ApiError:
    error = kind.__new__(kind, *arguments)
    vars(error).update(members)
    return error
