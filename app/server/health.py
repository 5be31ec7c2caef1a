"""Routes for operators: is the process alive, can it work, what has it done.

They ask for no key, so what they cost is bounded: a caller that asks often gets an answer that is up to a
quarter second old.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from typing_extensions import TypedDict

from app.contract.errors import MemstoreError
from app.jobs.service import measure_jobs
from app.server import metrics
from app.server.remembered import Remembered
from app.storage.storage import Storage
from app.storage.upkeep.installation import SharedBlobStore
from app.storage.upkeep.sweeper import measure_stage

router = APIRouter(tags=["operation"])

_SECONDS = 5.0
_PER_SECOND, _AT_ONCE = 4, 20


class Alive(TypedDict):
    """The process answers."""

    status: Literal["ok"]


class Ready(TypedDict):
    """Whether each part the service needs answers: `ok`, or what is wrong."""

    status: Literal["ok", "unavailable"]
    database: str
    blob_store: str


@router.get("/healthz")
async def healthz() -> Alive:
    """Alive: the process answers. Says nothing of database and blob store."""
    return {"status": "ok"}


class Condition:
    """How the parts of a service are, found out as often as is bearable."""

    def __init__(self, storage: Storage, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds that only ever grow."""
        self._storage = storage
        self.ready = Remembered(self._ready, per_second=_PER_SECOND, at_once=_AT_ONCE, clock=clock)
        """What `/readyz` answers."""
        self.metrics = Remembered(self._metrics, per_second=_PER_SECOND, at_once=_AT_ONCE, clock=clock)
        """The document of `/metrics`."""

    async def _ready(self) -> Ready:
        database, blob_store = await asyncio.gather(_state(self._database()), _state(self._storage.ownership.check()))
        both = database == blob_store == "ok"
        return {"status": "ok" if both else "unavailable", "database": database, "blob_store": blob_store}

    async def _database(self) -> None:
        await measure_stage(self._storage.database)
        await self._storage.database.require_writable()

    async def _metrics(self) -> bytes:
        # Without the database the rest is still worth showing, above all then.
        await _state(measure_stage(self._storage.database))
        await _state(measure_jobs(self._storage.database))
        return metrics.document()


async def _state(check: Awaitable[None]) -> str:
    try:
        async with asyncio.timeout(_SECONDS):
            await check
    except TimeoutError:
        return f"no answer within {_SECONDS:.0f} seconds"
    except SharedBlobStore:
        return "ok"  # It answers; the sweeper and fsck say what is wrong with it.
    except MemstoreError as error:
        return error.message
    return "ok"


@router.get("/readyz", response_model=Ready, responses={503: {"model": Ready}})
async def readyz(request: Request) -> Response:
    """Ready: database and blob store answer."""
    condition: Condition = request.app.state.condition
    ready = await condition.ready()
    return JSONResponse(ready, 200 if ready["status"] == "ok" else 503)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def prometheus(request: Request) -> Response:
    """Metrics in Prometheus' text format."""
    condition: Condition = request.app.state.condition
    return Response(await condition.metrics(), media_type="text/plain; version=0.0.4")
