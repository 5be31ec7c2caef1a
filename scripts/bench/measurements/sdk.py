"""Row 8: what the official SDK costs by itself, at one client; for information."""

import itertools
import statistics
import time
from collections.abc import Callable

import anthropic

from scripts.bench import dataset
from scripts.bench.bench import Bench
from scripts.bench.contest import Side
from scripts.bench.dataset import Shape
from scripts.bench.load import Figure
from scripts.bench.product import install, serve
from scripts.bench.report import Goal, Row, row_of_times

_SHAPE = Shape(stores=16, memories_per_store=16)
_INFORMATION = Goal()


def _median_latency(call: Callable[[], object], seconds: float) -> Figure:
    """Of calls one after the other."""
    latencies: list[float] = []
    ended = time.perf_counter()
    until = ended + seconds
    while ended < until:
        began = ended
        call()
        ended = time.perf_counter()
        latencies.append(ended - began)
    return Figure(statistics.median(latencies))


def latency(bench: Bench) -> list[Row]:
    """Median latency through the SDK over that of Python's own `http.client`, for the same requests."""
    installation = install(bench.new_path("sdk"), _SHAPE, database=bench.new_database("sdk"))
    memories = itertools.cycle(
        (dataset.store_id(store), dataset.memory_id(_SHAPE, store, memory)) for store, memory in dataset.targets(_SHAPE)
    )
    numbers = itertools.count()

    def fresh() -> str:
        return f"update {next(numbers):012d} ".ljust(_SHAPE.content_bytes, "x")

    with (
        serve(installation, cpus=bench.cores.every) as product,
        product.caller() as caller,
        anthropic.Anthropic(
            api_key=installation.api_key, base_url=f"http://127.0.0.1:{product.port}", max_retries=0
        ) as client,
    ):
        sdk = client.beta.memory_stores.memories

        def sdk_retrieve() -> None:
            store_id, memory_id = next(memories)
            sdk.retrieve(memory_id, memory_store_id=store_id)

        def sdk_update() -> None:
            store_id, memory_id = next(memories)
            sdk.update(memory_id, memory_store_id=store_id, content=fresh())

        def plain_retrieve() -> None:
            store_id, memory_id = next(memories)
            caller.get(f"/v1/memory_stores/{store_id}/memories/{memory_id}")

        def plain_update() -> None:
            store_id, memory_id = next(memories)
            body = b'{"content":"%b"}' % fresh().encode()
            caller.post(f"/v1/memory_stores/{store_id}/memories/{memory_id}", body)

        def side(call: Callable[[], object]) -> Side:
            return Side(lambda: _median_latency(call, bench.options.seconds), settle=product.drain_staged)

        return [
            row_of_times(
                f"{name} 1 KB through the official Python SDK, 1 client, median latency; http.client",
                bench.compete(side(through_sdk), side(plain)),
                _INFORMATION,
            )
            for name, through_sdk, plain in (
                ("retrieve", sdk_retrieve, plain_retrieve),
                ("update", sdk_update, plain_update),
            )
        ]
