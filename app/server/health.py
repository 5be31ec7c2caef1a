"""Routes for operators: is the process alive, can it work, what has it done."""

import asyncio
import contextlib
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from typing_extensions import TypedDict

from app.contract.errors import MemstoreError, Unavailable
from app.server import metrics
from app.storage.storage import Storage
from app.storage.upkeep.installation import SharedBlobStore
from app.storage.upkeep.sweeper import measure_stage

router = APIRouter(tags=["operation"])

_SECONDS = 5.0


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


async def _state(check: Any) -> str:
    try:
        await asyncio.wait_for(check, _SECONDS)
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
    storage: Storage = request.app.state.storage
    database, blob_store = await asyncio.gather(
        _state(measure_stage(storage.database)), _state(storage.ownership.check())
    )
    ready = database == blob_store == "ok"
    body: Ready = {"status": "ok" if ready else "unavailable", "database": database, "blob_store": blob_store}
    return JSONResponse(body, 200 if ready else 503)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def prometheus(request: Request) -> Response:
    """Metrics in Prometheus' text format."""
    storage: Storage = request.app.state.storage
    # Without the database the rest is still worth showing, above all then.
    with contextlib.suppress(Unavailable):
        await measure_stage(storage.database)
    return Response(metrics.document(), media_type="text/plain; version=0.0.4")
