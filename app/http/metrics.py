"""Prometheus metrics of the HTTP layer, and the `/metrics` document."""

import contextlib
import os
from collections.abc import Iterator
from functools import lru_cache

from prometheus_client import REGISTRY as PROCESS_REGISTRY
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    multiprocess,
)

disable_created_metrics()  # type: ignore[no-untyped-call]  # A time stamp per series, which nobody asks for.

_REQUESTS = Counter("memstore_http_requests", "Answers by route, method and status", ["route", "method", "status"])
_SECONDS = Histogram(
    "memstore_http_request_seconds",
    "Time from the request's head to the end of its answer",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
_STREAMS = Gauge(
    "memstore_http_streams", "Answers that are being sent piece by piece", ["route"], multiprocess_mode="livesum"
)


@lru_cache(maxsize=1024)
def _children(route: str, method: str, status: int) -> tuple[Counter, Histogram]:
    return _REQUESTS.labels(route, method, str(status)), _SECONDS.labels(route)


def observe(route: str, method: str, status: int, seconds: float) -> None:
    """Count one answer."""
    requests, duration = _children(route, method, status)
    requests.inc()
    duration.observe(seconds)


@contextlib.contextmanager
def open_stream(route: str) -> Iterator[None]:
    """Count a stream while it is open."""
    gauge = _STREAMS.labels(route)
    gauge.inc()
    try:
        yield
    finally:
        gauge.dec()


def document() -> bytes:
    """The metrics in Prometheus' text format; of all worker processes, where there are several."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(PROCESS_REGISTRY)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
