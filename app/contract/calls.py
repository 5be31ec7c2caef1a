"""The context of a call, which follows it through every room."""

from contextvars import ContextVar

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The ID of the request that is being answered, set by the gateway; `None` in a command."""
