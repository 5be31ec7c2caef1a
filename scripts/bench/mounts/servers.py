"""What the mount's measurements ask of the server besides the mount: more stores, plain requests, a slow way there."""

import itertools
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.bench.bench import Bench
from scripts.bench.load import Figure
from scripts.bench.mounts.program import Timing
from scripts.bench.processes import free_port, running, wait_until_ready
from scripts.bench.product import Caller, Product

_REPOSITORY = Path(__file__).parents[3]
_numbers = itertools.count()


def new_store(caller: Caller, name: str, memories: int = 0, content: str = "") -> str:
    """A new store; its ID."""
    store: str = json.loads(caller.post("/v1/memory_stores", json.dumps({"name": name}).encode()))["id"]
    for number in range(memories):
        create(caller, store, f"/note-{number:06d}.md", content)
    return store


def create(caller: Caller, store_id: str, path: str, content: str) -> None:
    """A new memory."""
    caller.post(f"/v1/memory_stores/{store_id}/memories", json.dumps({"path": path, "content": content}).encode())


def plain_creates(port: int, api_key: str, store_id: str, *, seconds: float) -> Figure:
    """Create memories of 4 KB one after the other for so long, as a plain client does: the bound of a save."""
    latencies: list[int] = []
    with Caller(port, api_key) as caller:
        caller.get(f"/v1/memory_stores/{store_id}")  # connected before the first is timed
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            path = f"/plain/{next(_numbers):08d}.md"
            text = path.ljust(4096, "x")
            began = time.monotonic_ns()
            create(caller, store_id, path, text)
            latencies.append(time.monotonic_ns() - began)
    return Timing(len(latencies), sum(latencies) / 1e9, latencies).figure


@contextmanager
def slowly(bench: Bench, product: Product, seconds: float) -> Iterator[int]:
    """A port that leads to the server, whose answers take so much longer there."""
    port = free_port()
    log = bench.new_path("slow.log")
    command = [sys.executable, "-m", "scripts.bench.mounts.slow_proxy", str(port), str(product.port), str(seconds)]
    with running(command, directory=_REPOSITORY, log=log, environment={}, cpus=bench.cores.every) as process:
        wait_until_ready(port, "/readyz", process, log)
        yield port
