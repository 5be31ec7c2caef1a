"""The official SDK's own way to give a session its memory: a copy of the files, brought up to date now and then.

`SessionMemoryStores` is what its self-hosted worker runs; the module is not public, and may move.
"""

import asyncio
import random
import time
from pathlib import Path

import anthropic
from anthropic.lib.tools._memories import DEFAULT_MEMORY_SYNC_INTERVAL, SessionMemoryStores

from scripts.bench import dataset
from scripts.bench.bench import Bench
from scripts.bench.errors import MeasurementError
from scripts.bench.mounts import trees
from scripts.bench.product import Product

INTERVAL_SECONDS = DEFAULT_MEMORY_SYNC_INTERVAL
_TOOL_CALL_SECONDS = 0.05
"""The worker looks whether a sync is due after each tool call of the agent; this agent is a busy one."""
_GIVE_UP_SECONDS = 4 * INTERVAL_SECONDS


def latencies(bench: Bench, product: Product, *, samples: int) -> list[float]:
    """Seconds from a change by another client until the worker's copy has it; changes come at any time.

    Raises:
        MeasurementError: it never came.
    """
    directory = bench.new_path("worker")
    directory.mkdir()
    return asyncio.run(_latencies(directory, product, samples))


async def _latencies(directory: Path, product: Product, samples: int) -> list[float]:
    base_url = f"http://127.0.0.1:{product.port}"
    async with anthropic.AsyncAnthropic(api_key=product.installation.api_key, base_url=base_url) as client:
        agent = await client.beta.agents.create(name="Bench", model="claude-opus-4-5")
        environment = await client.beta.environments.create(name="Bench", config={"type": "self_hosted"})
        session = await client.beta.sessions.create(
            agent=agent.id,
            environment_id=environment.id,
            resources=[{"type": "memory_store", "memory_store_id": dataset.store_id(0), "access": "read_write"}],
        )
        for resource in session.resources:
            if resource.type == "memory_store":
                resource.mount_path = str(directory / "copy")
        stores = SessionMemoryStores(client, workdir=directory)
        await stores.download(session)
        try:
            return [await _latency(client, stores, directory / "copy" / trees.names()[1], n) for n in range(samples)]
        finally:
            await stores.dispose()


async def _latency(client: anthropic.AsyncAnthropic, stores: SessionMemoryStores, file: Path, number: int) -> float:
    until = time.monotonic() + random.uniform(0, INTERVAL_SECONDS)
    while time.monotonic() < until:
        await _tool_call(stores)
    text = f"change {number}\n".encode()
    began = time.monotonic()
    await client.beta.memory_stores.memories.update(
        dataset.memory_id(trees.SHAPE, 0, 1), memory_store_id=dataset.store_id(0), content=text.decode()
    )
    while not _holds(file, text):
        if time.monotonic() > began + _GIVE_UP_SECONDS:
            raise MeasurementError(f"the sync worker did not bring a change within {_GIVE_UP_SECONDS:.0f} s")
        await _tool_call(stores)
    return time.monotonic() - began


def _holds(file: Path, text: bytes) -> bool:
    return file.read_bytes() == text


async def _tool_call(stores: SessionMemoryStores) -> None:
    await asyncio.sleep(_TOOL_CALL_SECONDS)
    await stores.sync_if_due()
