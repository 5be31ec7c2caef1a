"""The ASGI application in front: everything below `/v1/` is answered here, the rest by FastAPI.

Per request: an ID, the caller, the headers' rules, the body within its limit, the bound route, and an answer that
always carries `request-id`; whatever goes wrong leaves as the error envelope.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import orjson

from app.audit.refused_requests import Refusals
from app.contract import ids
from app.contract.actors import Caller
from app.contract.calls import REQUEST_ID
from app.contract.errors import InternalError, MemstoreError, NotFound, Unavailable
from app.http import access
from app.http import headers as header_rules
from app.http.asgi import Application, Receive, Scope, Send
from app.http.replies import Reply, Stream
from app.http.uploads import ClientLeft, Upload, announced_size, too_large
from app.keys.service import Authenticator
from app.server import logs, metrics, variants
from app.server.binding import BoundRoute, RouteTable
from app.server.envelope import envelope
from app.server.rate_limits import RateLimits
from app.server.streams import Recheck, send_stream
from app.server.tracing import Tracing
from app.storage.rows.database import Database
from app.storage.rows.erased import was_erased

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_log = logging.getLogger(__name__)

_JSON = (b"content-type", b"application/json")
_STREAM_HEADERS = ((b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"))
"""What is sent now is worth nothing later, and no proxy may gather it up (the second is nginx's word for that)."""


async def _read_body(receive: Receive, headers: header_rules.Headers, maximum: int) -> bytes:
    """The request's body.

    Raises:
        RequestTooLarge: it is, or says it is, larger than `maximum` bytes; the rest was not read.

    """
    if announced_size(headers) > maximum:
        raise too_large(maximum)
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > maximum:
            raise too_large(maximum)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


class Gateway:
    """Serves the API's routes itself and hands everything else to `fallback`."""

    def __init__(
        self,
        fallback: Application,
        routes: RouteTable,
        authenticator: Authenticator,
        *,
        strict_beta: bool,
        max_body_bytes: int,
        draining: asyncio.Event | None = None,
        database: Database | None = None,
        refusals: Refusals | None = None,
        limits: RateLimits | None = None,
        tracing: Tracing | None = None,
        log_all: bool = False,
        gzip_min_bytes: int = 0,
    ) -> None:
        """`draining` is set when the process is asked to end; streams without an end of their own then end.

        database: where to look whether what is missing was erased.
        refusals: where attempts at what is not allowed are noted for the audit log.
        gzip_min_bytes: answers from this size on are compressed for clients that take it; 0: none is.
        log_all: print a line for every answer, not for those with a status of 500 and above alone.
        """
        self._draining = draining or asyncio.Event()
        self._fallback = fallback
        self._routes = routes
        self._authenticator = authenticator
        self._strict_beta = strict_beta
        self._max_body_bytes = max_body_bytes
        self._database = database
        self._refusals = refusals
        self._limits = limits
        self._tracing = tracing
        self._log_all = log_all
        self._gzip_min_bytes = gzip_min_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or not f"{scope['path']}/".startswith("/v1/"):
            if root_path := scope.get("root_path"):
                # As ASGI has it, and FastAPI with it.
                scope["path"] = root_path + scope["path"]
                scope["raw_path"] = root_path.encode() + scope.get("raw_path", b"")
            await self._fallback(scope, receive, send)
            return
        answer = _Answer(ids.new(ids.REQUEST), time.perf_counter())
        REQUEST_ID.set(answer.request_id)
        began = time.time_ns()
        try:
            answer.caller = await self._authenticator.authenticate(header_rules.secret(dict(scope["headers"])))
        except Exception as error:
            answer.failure = error
        if self._tracing is None:
            await self._answer(scope, receive, send, answer)
            return
        # The caller's trace is believed only once the caller is known.
        with self._tracing.request(scope, began, is_continued=answer.caller is not None) as answer.span:
            await self._answer(scope, receive, send, answer)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, answer: "_Answer") -> None:
        method = scope["method"]
        try:
            await self._serve(scope, receive, answer)
        except ClientLeft:
            return
        except MemstoreError as error:
            if isinstance(error, NotFound):
                await self._tell_erased(error, answer.caller)
            answer.refuse(error)
            if error.is_audited and self._refusals is not None:
                self._refusals.note(error, self._operation(scope), answer.caller, answer.request_id)
        except Exception:
            _log.exception("request %s failed", answer.request_id)
            answer.refuse(InternalError(f"an internal error occurred; it is logged under {answer.request_id}"))
        if answer.stream is not None:
            await answer.begin(send, answer.stream)
            if answer.stream.farewell is not None:
                # Counted now: how long a client listens says nothing of the service.
                self._tell(method, answer)
            agent = dict(scope["headers"]).get(b"user-agent", b"")
            with metrics.open_stream(answer.route, agent, is_endless=answer.stream.farewell is not None):
                await send_stream(answer.stream, receive, send, draining=self._draining, recheck=answer.recheck)
            if answer.stream.farewell is not None:
                return
        else:
            await answer.prepare(scope, self._gzip_min_bytes)
            await answer.send(send, head_only=method == "HEAD")
        self._tell(method, answer)

    async def _tell_erased(self, error: NotFound, caller: Caller | None) -> None:
        """Let a refusal say that what is missing was erased, to a caller of the workspace that it was erased from."""
        if self._database is None or caller is None or error.store_id is None:
            return
        subjects = [(error.store_id, "")] if error.memory_id is None else [(error.store_id, error.memory_id)]
        try:
            error.erased = await was_erased(self._database, caller.workspace_id, subjects)
        except Unavailable as unavailable:
            # What it is not told now it learns when it asks again; that it is missing is true anyhow.
            _log.info("whether something was erased could not be looked up: %s", unavailable)

    def _tell(self, method: str, answer: "_Answer") -> None:
        """Metrics, trace and log of an answer."""
        seconds = time.perf_counter() - answer.started
        actor = "" if answer.caller is None else answer.caller.actor.type
        metrics.observe(answer.route, method, answer.status, seconds, actor, answer.operation, answer.refusal)
        if answer.span is not None and self._tracing is not None:
            self._tracing.finish(answer.span, method, answer)
        if self._log_all or answer.status >= 500:
            logs.answered(answer.request_id, method, answer.route, answer.status, seconds)

    async def _serve(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        caller = answer.caller
        if caller is None:
            assert answer.failure is not None
            raise answer.failure
        headers = dict(scope["headers"])
        answer.headers.append((b"anthropic-workspace-id", caller.workspace_id.encode()))
        if self._limits is not None:
            answer.add(self._limits.admit(caller))
        header_rules.check_workspace(headers, caller)
        if self._strict_beta:
            header_rules.check_strictly(scope["headers"], headers)
        route, path = self._routes.find(scope["method"], scope["path"])
        answer.route = route.template
        answer.operation = route.operation
        if caller.session is not None:
            access.check(route.session_access, path, caller.session)
        if self._limits is not None and (route.body_name or route.upload_name):
            self._limits.admit_body(caller)
            receive = self._limits.counted(receive, caller)
        body = b""
        if route.body_name is not None:
            body = await _read_body(receive, headers, self._max_body_bytes)
        arguments = route.arguments(path, caller, scope["query_string"], body, headers)
        if route.upload_name is not None:
            arguments[route.upload_name] = Upload(receive, headers)
        result = await route.endpoint(**arguments)
        if isinstance(result, Stream):
            answer.stream = result
            answer.recheck = self._rechecking(headers, route, path, caller)
            return
        if isinstance(result, Reply):
            answer.add(result.headers)
            result = result.body
        answer.body = orjson.dumps(result)

    def _operation(self, scope: Scope) -> str | None:
        """Method and template of a request's route, whatever came before it; None if there is none."""
        try:
            route, _ = self._routes.find(scope["method"], scope["path"])
        except MemstoreError:
            return None
        return f"{scope['method']} {route.template}"

    def _rechecking(
        self, headers: header_rules.Headers, route: BoundRoute, path: Mapping[str, str], caller: Caller
    ) -> Recheck:
        """What a stream that goes on asks again and again: see `app.server.streams`."""

        async def recheck() -> bool:
            found = await self._authenticator.authenticate(header_rules.secret(headers))
            if found.session is not None:
                access.check(route.session_access, path, found.session)
            return found == caller

        return recheck


class _Answer:
    """One response in the making."""

    __slots__ = (
        "body", "caller", "failure", "headers", "operation", "recheck", "refusal", "request_id", "route", "span",
        "started", "status", "stream",
    )  # fmt: skip

    recheck: Recheck

    def __init__(self, request_id: str, started: float) -> None:
        self.request_id = request_id
        self.started = started
        self.caller: Caller | None = None
        self.failure: Exception | None = None
        """Why there is no caller."""
        self.route = "none"
        self.operation = ""
        self.refusal = ""
        """The type of the error; empty for a success."""
        self.span: Span | None = None
        self.status = 200
        self.headers: list[tuple[bytes, bytes]] = [_JSON, (b"request-id", request_id.encode())]
        self.body = b""
        self.stream: Stream | None = None
        """Comes in place of a body."""

    @property
    def etag(self) -> bytes | None:
        """The entity tag, if the route gave one."""
        return next((value for name, value in self.headers if name == b"etag"), None)

    def add(self, headers: Mapping[str, str]) -> None:
        """Add headers."""
        self.headers += [(name.encode(), value.encode()) for name, value in headers.items()]

    def refuse(self, error: MemstoreError) -> None:
        """Make it the envelope of an error."""
        self.status = error.status
        self.refusal = error.type
        self.add(error.headers())
        self.body = envelope(error, self.request_id)

    async def begin(self, send: Send, stream: Stream) -> None:
        """Send the start of an answer whose body comes piece by piece."""
        self.headers[0] = (b"content-type", stream.media_type.encode())
        self.headers += _STREAM_HEADERS
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})

    async def prepare(self, scope: Scope, gzip_min_bytes: int) -> None:
        """Choose the form of the body: none if the client has it already, compressed if it is large."""
        if self.status == 200 and self.etag is not None and scope["method"] in ("GET", "HEAD"):
            wanted = b",".join(value for name, value in scope["headers"] if name == b"if-none-match")
            if wanted and variants.is_known(wanted, self.etag):
                self.status, self.body = 304, b""
                del self.headers[0]  # The type of a body.
        if gzip_min_bytes and (len(self.body) >= gzip_min_bytes or self.status == 304):
            self.headers.append((b"vary", b"accept-encoding"))
            accepted = b",".join(value for name, value in scope["headers"] if name == b"accept-encoding")
            if self.body and variants.takes_gzip(accepted):
                self.body = await variants.gzip(self.body)
                self.headers = variants.weakened(self.headers)
                self.headers.append((b"content-encoding", b"gzip"))

    async def send(self, send: Send, *, head_only: bool) -> None:
        """Send it; to a HEAD without the body, but with its length."""
        if self.status != 304:
            self.headers.append((b"content-length", b"%d" % len(self.body)))
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": b"" if head_only else self.body})
