"""Timing what the database and the blob store do, and showing it in a trace.

    @timed(DATABASE_SECONDS, "read", every=8)
    async def fetch_all(self, …): …

A read of SQLite takes 10 µs and one of the histogram's observations up to 2 µs, so reads are sampled: most calls
cost a look at two variables. What is slow is also slow in a sample.
"""

import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, TypeVar, cast

from prometheus_client import Histogram

F = TypeVar("F", bound=Callable[..., Coroutine[Any, Any, Any]])

Span = Callable[[str, str], AbstractContextManager[object]]
"""Shows a piece of work in the trace at hand: what is done, such as `read`, and by which system, such as `sqlite`."""

_span: Span | None = None


def show_spans(span: Span | None) -> None:
    """From now on, have every timed call of this process shown by `span`; None ends that."""
    global _span
    _span = span


def timed(seconds: Histogram, operation: str, *, every: int = 1) -> Callable[[F], F]:
    """Observe how long one of `every` calls of a method takes, whether it succeeds or not.

    The method's object names its `system`.
    """
    observe = seconds.labels(operation).observe

    def decorate(method: F) -> F:
        calls = 0

        async def measured(self: Any, *arguments: Any, **keywords: Any) -> Any:
            started = time.perf_counter()
            try:
                return await shown(self, *arguments, **keywords)
            finally:
                observe(time.perf_counter() - started)

        async def shown(self: Any, *arguments: Any, **keywords: Any) -> Any:
            if _span is None:
                return await method(self, *arguments, **keywords)
            with _span(operation, self.system):
                return await method(self, *arguments, **keywords)

        @wraps(method)
        def called(self: Any, *arguments: Any, **keywords: Any) -> Coroutine[Any, Any, Any]:
            nonlocal calls
            calls += 1
            if calls % every == 0:
                return measured(self, *arguments, **keywords)
            if _span is not None:
                return shown(self, *arguments, **keywords)
            return method(self, *arguments, **keywords)

        return cast("F", called)

    return decorate
