"""Prometheus metrics of the HTTP layer, and the `/metrics` document."""

import contextlib
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

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

from app import __version__

disable_created_metrics()  # type: ignore[no-untyped-call]  # A time stamp per series, which nobody asks for.

_REQUESTS = Counter("memstore_http_requests", "Answers by route, method and status", ["route", "method", "status"])
_SECONDS = Histogram(
    "memstore_http_request_seconds",
    "Time from the request's head to the end of its answer",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
_WRITES = Counter(
    "memstore_writes", "Requests that changed something, by the kind of author and by operation", ["actor", "operation"]
)
_REFUSALS = Counter("memstore_refusals", "Requests that were refused, by the type of the error", ["type", "route"])
_STREAMS = Gauge(
    "memstore_http_streams", "Answers that are being sent piece by piece", ["route"], multiprocess_mode="livesum"
)
_READERS = Gauge(
    "memstore_feed_readers",
    "Streams of changes that are open; each store that a mount shows has one",
    ["client"],
    multiprocess_mode="livesum",
)
_BUILD = Gauge("memstore_build_info", "1, with the version that runs", ["version"], multiprocess_mode="mostrecent")
_BUILD.labels(__version__).set(1)

_MOUNT_AGENT = b"memstore-mount/"
_ONLY_READ = frozenset({"GET", "HEAD"})


@lru_cache(maxsize=4096)
def _children(
    route: str, method: str, status: int, actor: str, operation: str, refusal: str
) -> tuple[Counter, Histogram, Counter | None]:
    further: Counter | None = None
    if refusal:
        further = _REFUSALS.labels(refusal, route)
    elif method not in _ONLY_READ:
        further = _WRITES.labels(actor, operation)
    return _REQUESTS.labels(route, method, str(status)), _SECONDS.labels(route), further


def observe(
    route: str, method: str, status: int, seconds: float, actor: str = "", operation: str = "", refusal: str = ""
) -> None:
    """Count one answer. actor: the author's type. operation: what the route does. refusal: the error's type, if any."""
    requests, duration, further = _children(route, method, status, actor, operation, refusal)
    requests.inc()
    duration.observe(seconds)
    if further is not None:
        further.inc()


@contextlib.contextmanager
def open_stream(route: str, user_agent: bytes, *, is_endless: bool) -> Iterator[None]:
    """Count a stream while it is open. is_endless: it reads changes, for the program that `user_agent` names."""
    gauges = [_STREAMS.labels(route)]
    if is_endless:
        gauges.append(_READERS.labels("mount" if user_agent.startswith(_MOUNT_AGENT) else "other"))
    for gauge in gauges:
        gauge.inc()
    try:
        yield
    finally:
        for gauge in gauges:
            gauge.dec()


def document() -> bytes:
    """The metrics in Prometheus' text format; of all worker processes, where there are several."""
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if directory is None:
        return generate_latest(PROCESS_REGISTRY)
    _forget_the_dead(Path(directory))
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def _forget_the_dead(directory: Path) -> None:
    """A worker that was killed did not count its streams down: what it had open is closed."""
    for process_id in {file.stem.rpartition("_")[2] for file in directory.glob("gauge_live*.db")}:
        if process_id.isdigit() and not Path("/proc", process_id).exists():
            multiprocess.mark_process_dead(int(process_id))  # type: ignore[no-untyped-call]
