"""The one exception tree. Whatever the service refuses is one of these; `app.http` gives it its envelope.

    MemstoreError
    ├── InvalidRequest             400 invalid_request_error
    │   ├── MethodNotAllowed       405 invalid_request_error
    │   └── UnderLegalHold         400 invalid_request_error, error_code legal_hold
    ├── AuthenticationFailed       401 authentication_error
    ├── PermissionDenied           403 permission_error
    ├── NotFound                   404 not_found_error
    ├── Conflict                   409 conflict_error
    ├── PathConflict               409 memory_path_conflict_error
    ├── PreconditionFailed         409 memory_precondition_failed_error
    ├── RequestTooLarge            413 request_too_large
    ├── HeadTooLarge               431 request_too_large
    ├── RequestTimeout             408 invalid_request_error
    ├── RateLimited                429 rate_limit_error, retry-after
    ├── InternalError              500 api_error
    ├── Unavailable                503 api_error, retry-after (a part the service needs does not answer)
    └── Overloaded                 529 overloaded_error, retry-after (too much work at once)

Messages are for people: what was wrong, with which value, and what would have been accepted.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar


class MemstoreError(Exception):
    """Base of every refusal. `status` is the HTTP status, `type` the wire's `error.type`."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "api_error"
    is_audited: ClassVar[bool] = False
    """Whether the audit log tells of it: somebody tried what they may not."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def fields(self) -> dict[str, Any]:
        """Further members of the wire's `error` object, beside `type` and `message`."""
        return {}

    def headers(self) -> dict[str, str]:
        """Response headers that belong to this refusal."""
        return {}


class InvalidRequest(MemstoreError):
    """The request can't be understood or breaks a rule of the contract."""

    status = 400
    type = "invalid_request_error"

    def __init__(self, message: str, error_code: str | None = None) -> None:
        """`error_code` is a finer name of the cause, where it has one."""
        super().__init__(message)
        self.error_code = error_code

    def fields(self) -> dict[str, Any]:
        return {} if self.error_code is None else {"details": {"error_code": self.error_code}}


class MethodNotAllowed(InvalidRequest):
    """The path exists, but not with this method. The vendor documents no type for 405."""

    status = 405

    def __init__(self, method: str, allowed: tuple[str, ...]) -> None:
        self.allowed = ", ".join(allowed)
        super().__init__(f"method {method} is not allowed here; allowed: {self.allowed}")

    def headers(self) -> dict[str, str]:
        return {"allow": self.allowed}


class UnderLegalHold(InvalidRequest):
    """Something of a memory store that is under legal hold would be lost."""

    is_audited = True

    def __init__(self, store_id: str, since: str) -> None:
        """since: RFC 3339."""
        super().__init__(
            f"memory store {store_id!r} is under legal hold since {since}: until that is released, nothing of it can "
            "be deleted, redacted or erased",
            "legal_hold",
        )


class AuthenticationFailed(MemstoreError):
    """No credential, or one that is unknown or revoked."""

    status = 401
    type = "authentication_error"
    is_audited = True


class PermissionDenied(MemstoreError):
    """A valid credential that may not do this."""

    status = 403
    type = "permission_error"
    is_audited = True


class NotFound(MemstoreError):
    """No such thing in the caller's workspace. Another workspace's things look the same as missing ones."""

    status = 404
    type = "not_found_error"

    def __init__(self, message: str, *, store_id: str | None = None, memory_id: str | None = None) -> None:
        """The IDs: of the store that is not there, or of the store and the memory that is not in it."""
        super().__init__(message)
        self.store_id = store_id
        self.memory_id = memory_id
        self.erased = False
        """Whether it was erased, by an administrator who forgot somebody, and must not come back."""

    def fields(self) -> dict[str, Any]:
        return {"erased": True} if self.erased else {}


class Conflict(MemstoreError):
    """Somebody else was first: a name is taken, or a newer version is there (contract, 5.5)."""

    status = 409
    type = "conflict_error"

    def headers(self) -> dict[str, str]:
        return {"x-should-retry": "false"}


class PathConflict(MemstoreError):
    """A memory at the path itself, above it or below it is in the way (contract, 2.4 and 4.2)."""

    status = 409
    type = "memory_path_conflict_error"

    def __init__(self, path: str, conflicting_memory_id: str, conflicting_path: str) -> None:
        super().__init__(
            f"path {path!r} conflicts with the memory at {conflicting_path!r}: "
            "a path can't be used twice, and can't be both a memory and a directory"
        )
        self.conflicting_memory_id = conflicting_memory_id
        self.conflicting_path = conflicting_path

    def fields(self) -> dict[str, Any]:
        return {
            "conflicting_memory_id": self.conflicting_memory_id,
            "conflicting_path": self.conflicting_path,
        }

    def headers(self) -> dict[str, str]:
        # The SDKs retry every 409 twice unless told not to; this one can't go away by itself.
        return {"x-should-retry": "false"}


class PreconditionFailed(MemstoreError):
    """The memory's content is not the one the caller expected (contract, 2.6 and 2.7)."""

    status = 409
    type = "memory_precondition_failed_error"

    def headers(self) -> dict[str, str]:
        return {"x-should-retry": "false"}


class RequestTooLarge(MemstoreError):
    """The body is larger than the service reads."""

    status = 413
    type = "request_too_large"

    def headers(self) -> dict[str, str]:
        # The rest of the body is not read, so the connection can't carry another request.
        return {"connection": "close"}


class HeadTooLarge(MemstoreError):
    """The request line and the header fields are more than the service reads."""

    status = 431
    type = "request_too_large"


class RequestTimeout(MemstoreError):
    """A request does not come to its end, or comes too slowly."""

    status = 408
    type = "invalid_request_error"


class RateLimited(MemstoreError):
    """The key has used up what it may ask for in a minute."""

    status = 429
    is_audited = True
    type = "rate_limit_error"

    def __init__(self, message: str, retry_after_seconds: int, left: Mapping[str, str] = MappingProxyType({})) -> None:
        """`left`: headers that tell what is left, as every answer under the limit has them."""
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self._left = left

    def headers(self) -> dict[str, str]:
        return {"retry-after": str(self.retry_after_seconds), **self._left}


class InternalError(MemstoreError):
    """A fault of the service itself."""


class Unavailable(MemstoreError):
    """The database or the blob store does not answer; nothing was changed, or the outcome is unknown."""

    status = 503
    retry_after_seconds = 1

    def headers(self) -> dict[str, str]:
        return {"retry-after": str(self.retry_after_seconds)}


class Overloaded(Unavailable):
    """More work at once than the service takes on."""

    status = 529
    type = "overloaded_error"


def for_log(error: BaseException) -> str:
    """What a log may tell of an error: its text if that holds nothing a caller sent, else its type."""
    return error.message if isinstance(error, Unavailable) else type(error).__name__
