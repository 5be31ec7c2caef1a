"""The application: FastAPI for the documents and the operators' routes, the gateway for the API."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from app import __version__
from app.agents import routes as agent_routes
from app.agents.service import Agents
from app.audit import routes as audit_routes
from app.audit.refused_requests import Refusals
from app.audit.service import AuditLog
from app.contract import ids
from app.contract.errors import MethodNotAllowed
from app.environments import routes as environment_routes
from app.environments.service import Environments
from app.erasure import routes as erasure_routes
from app.erasure import tasks as erasure_tasks
from app.erasure.watch import ErasureWatch
from app.feed import routes as feed_routes
from app.feed.service import Feed
from app.feed.snapshots import Snapshots
from app.feed.wire import change_event
from app.history import routes as history_routes
from app.history.as_of import AsOf
from app.history.blame import Blame
from app.history.comparing import Comparing
from app.history.restoring import Restoring
from app.history.rollback import Rollback
from app.http.asgi import Application
from app.http.documents import add_refusals
from app.jobs.service import Jobs
from app.jobs.worker import Worker
from app.keys.service import Authenticator, Keys
from app.memories import routes as memory_routes
from app.memories.moves import Moves
from app.memories.service import Memories
from app.server import health, logs, pages, tracing
from app.server.binding import RouteTable, nothing_at
from app.server.draining import Draining
from app.server.envelope import envelope
from app.server.forwarded import Forwarded
from app.server.gateway import Gateway
from app.server.operations import Operations
from app.server.rate_limits import RateLimits
from app.server.reference import Reference
from app.sessions import routes as session_routes
from app.sessions.service import Sessions
from app.sessions.tokens import SessionTokens
from app.settings import Settings, load, storage_options
from app.storage.storage import Storage
from app.stores import routes as store_routes
from app.stores.holds import Holds
from app.stores.quota import Limits
from app.stores.service import Stores
from app.transfer import routes as transfer_routes
from app.transfer.exporting import Exports
from app.transfer.importing import Imports
from app.versions import routes as version_routes
from app.versions.service import Versions

ROUTERS = (
    store_routes.router,
    memory_routes.router,
    memory_routes.moves_router,
    version_routes.router,
    feed_routes.router,
    agent_routes.router,
    environment_routes.router,
    session_routes.router,
    audit_routes.router,
    history_routes.router,
    transfer_routes.router,
    erasure_routes.router,
)

_TAGS = {
    "memory stores": "Make, find, change, archive and delete stores; legal holds.",
    "memories": "The files of a store: write, read, list, rename, delete; move whole directories.",
    "memory versions": "Every change of a memory, for ever; redaction of one version.",
    "history": "Compare, restore, roll back; a store as it was; the author of each line.",
    "changes": "What happened in a store since a number, page by page or as it happens; a snapshot to begin with.",
    "agents": "What sessions run.",
    "environments": "Where sessions run.",
    "sessions": "Sessions with their attached stores, and tokens that reach nothing else.",
    "in and out": "Export a store as an archive, import one or a directory of notes.",
    "erasures": "Erase what concerns a person everywhere, with a report; proof that it is gone.",
    "audit log": "What was done to stores and keys, and by whom.",
    "operation": "For load balancers and monitoring; without a key.",
}
"""In the order of the reference."""

_CORS_METHODS = ("GET", "HEAD", "POST", "DELETE")
_CORS_EXPOSED = (
    "request-id", "anthropic-workspace-id", "etag", "retry-after", "x-should-retry", "allow",
    "anthropic-ratelimit-requests-limit", "anthropic-ratelimit-requests-remaining",
    "anthropic-ratelimit-requests-reset", "content-disposition",
)  # fmt: skip
"""What a program in a browser may read of an answer beside its body."""
_CORS_SECONDS = 7_200
"""How long a browser need not ask again whether it may; more than this none believes."""


class _Cors(CORSMiddleware):
    """Starlette's; what it answers itself has a request's ID, as every answer of the API has."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Whether a page may ask."""
        answer = super().preflight_response(request_headers)
        answer.headers["request-id"] = ids.new(ids.REQUEST)
        return answer


def _services(settings: Settings, storage: Storage, jobs: Jobs) -> dict[type[Any], Any]:
    limits = Limits(settings.max_memories_per_store, settings.max_store_bytes)
    feed = Feed(storage, change_event)
    return {
        Storage: storage,
        Jobs: jobs,
        Stores: Stores(storage, max_stores=settings.max_stores),
        Holds: Holds(storage),
        Memories: Memories(storage, limits),
        Moves: Moves(storage),
        Versions: Versions(storage),
        Comparing: Comparing(storage, Versions(storage)),
        Restoring: Restoring(storage, Memories(storage, limits), limits),
        AsOf: AsOf(storage),
        Rollback: Rollback(storage, limits),
        Blame: Blame(storage),
        Feed: feed,
        Snapshots: Snapshots(storage, feed.readers),
        Agents: Agents(storage),
        Environments: Environments(storage),
        Sessions: Sessions(storage, Agents(storage), Environments(storage)),
        SessionTokens: SessionTokens(storage.database),
        AuditLog: AuditLog(storage.database),
        Exports: Exports(storage),
        Imports: Imports(
            storage,
            limits,
            max_stores=settings.max_stores,
            max_upload=settings.max_import_bytes,
            max_versions=settings.max_import_versions,
        ),
    }


def _collect_garbage_rarely() -> None:
    """A request leaves few cycles behind, and looking for them among all that was imported takes milliseconds."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


async def _refuse(request: Request, error: Exception) -> Response:
    """404 and 405 outside the API, in the API's envelope."""
    assert isinstance(error, HTTPException)
    allowed = Headers(error.headers).get("allow", "")
    refusal = MethodNotAllowed(request.method, (allowed,)) if error.status_code == 405 else nothing_at(request.url.path)
    request_id = ids.new(ids.REQUEST)
    headers = {"request-id": request_id, **refusal.headers()}
    return Response(envelope(refusal, request_id), refusal.status, headers, "application/json")


def _describe_refusals_once(app: FastAPI) -> None:
    """FastAPI itself would build the schemas of refusals for every status of every route, at each start."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        if not app.openapi_schema:
            add_refusals(described())
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation extends a document


def _serve_reference(app: FastAPI) -> None:
    """In place of FastAPI's own route, which makes the document's bytes again for each caller, on the loop."""
    theirs = next(route for route in app.router.routes if getattr(route, "path", "") == app.openapi_url)
    app.router.routes.remove(theirs)
    app.add_route(str(app.openapi_url), Reference(app.openapi).answer, include_in_schema=False)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The FastAPI application with every route declared, for the OpenAPI document and the operators' routes."""
    settings = settings or load()
    storage = Storage(storage_options(settings))
    draining = Draining()
    refusals = Refusals(storage.database)
    worker = Worker(storage.database)
    jobs = Jobs(storage.database, worker.wake)
    worker.does(*erasure_tasks.kinds(storage, jobs))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await storage.open()
        watch = ErasureWatch(storage.database, storage.cache, storage.mover, app.state.services[Feed].drop_stores)
        await watch.start()
        if settings.bootstrap_api_key is not None:
            await Keys(storage.database).ensure_bootstrap()
        refusals.start()
        worker.start()
        _collect_garbage_rarely()
        with draining.listening():
            yield
        await app.state.services[Feed].close()
        await worker.stop()
        await refusals.stop()
        await watch.stop()
        await storage.close()
        if app.state.tracing is not None:
            await asyncio.to_thread(app.state.tracing.close)

    # The pages behind /docs come from the package, not from a server on the Internet.
    app = FastAPIOffline(
        title="Memstore",
        version=__version__,
        summary="Memory stores for agents: versioned, path-addressed text files.",
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
        openapi_tags=[{"name": name, "description": text} for name, text in _TAGS.items()],
    )
    _describe_refusals_once(app)
    _serve_reference(app)
    app.state.settings = settings
    app.state.storage = storage
    app.state.draining = draining
    app.state.tracing = None
    app.state.refusals = refusals
    app.state.condition = health.Condition(storage)
    app.state.services = _services(settings, storage, jobs)
    app.add_exception_handler(HTTPException, _refuse)
    app.add_middleware(pages.PageHeaders)
    for router in (*ROUTERS, health.router, pages.router):
        app.include_router(router)
    return app


def create_gateway(settings: Settings | None = None) -> Application:
    """The whole service as one ASGI application; what `memstore serve` runs."""
    settings = settings or load()
    app = create_app(settings)
    logs.catch_what_bypasses_them()
    app.state.tracing = tracing.from_environment()
    per_minute = settings.rate_limit_requests_per_minute, settings.rate_limit_written_bytes_per_minute
    secret = settings.bootstrap_api_key
    api_routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    gateway: Application = Gateway(
        app,
        RouteTable(api_routes, app.state.services),
        Authenticator(app.state.storage.database, secret.get_secret_value() if secret else None),
        strict_beta=settings.strict_beta,
        max_body_bytes=settings.max_body_bytes,
        draining=app.state.draining.started,
        database=app.state.storage.database,
        refusals=app.state.refusals,
        limits=RateLimits(*per_minute) if any(per_minute) else None,
        tracing=app.state.tracing,
        log_all=settings.log_requests == "all",
        gzip_min_bytes=settings.gzip_min_bytes,
    )
    if settings.cors_origins:
        gateway = _Cors(
            gateway,
            allow_origins=settings.cors_origins,
            allow_methods=_CORS_METHODS,
            allow_headers=["*"],
            expose_headers=_CORS_EXPOSED,
            max_age=_CORS_SECONDS,
        )
    if settings.operations_port:
        gateway = Operations(gateway, settings.operations_port)
    if settings.trusted_proxies or settings.root_path:
        gateway = Forwarded(gateway, settings.trusted_proxies, settings.root_path)
    return gateway
