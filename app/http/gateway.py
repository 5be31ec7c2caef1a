"""The ASGI application in front: everything below `/v1/` is answered here, the rest by FastAPI.

Per request: an ID, the caller, the headers' rules, the body within its limit, the bound route, and an answer that
always carries `request-id`; whatever goes wrong leaves as the error envelope.
"""

import asyncio
import logging
import time
from collections.abc import Mapping

import orjson

from app.contract import ids
from app.contract.actors import Caller
from app.contract.errors import InternalError, MemstoreError, RequestTooLarge
from app.http import access, metrics
from app.http import headers as header_rules
from app.http.asgi import Application, Receive, Scope, Send
from app.http.binding import BoundRoute, Reply, RouteTable, Stream
from app.http.envelope import envelope
from app.http.streams import Recheck, send_stream
from app.keys.service import Authenticator

_log = logging.getLogger(__name__)

_JSON = (b"content-type", b"application/json")
_STREAM_HEADERS = ((b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"))
"""What is sent now is worth nothing later, and no proxy may gather it up (the second is nginx's word for that)."""


class ClientLeft(Exception):
    """The client closed the connection before its request was complete; nobody waits for an answer."""


async def _read_body(receive: Receive, headers: header_rules.Headers, maximum: int) -> bytes:
    """The request's body.

    Raises:
        RequestTooLarge: it is, or says it is, larger than `maximum` bytes; no more than that was read.

    """
    announced = headers.get(b"content-length", b"0")
    if announced.isdigit() and int(announced) > maximum:
        raise _too_large(maximum)
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > maximum:
            raise _too_large(maximum)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(maximum: int) -> RequestTooLarge:
    return RequestTooLarge(f"the request body is larger than {maximum:,} bytes")


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
    ) -> None:
        """`draining` is set when the process is asked to end; streams without an end of their own then end."""
        self._draining = draining or asyncio.Event()
        self._fallback = fallback
        self._routes = routes
        self._authenticator = authenticator
        self._strict_beta = strict_beta
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or not f"{scope['path']}/".startswith("/v1/"):
            await self._fallback(scope, receive, send)
            return
        started = time.perf_counter()
        answer = _Answer(ids.new(ids.REQUEST))
        try:
            await self._serve(scope, receive, answer)
        except ClientLeft:
            return
        except MemstoreError as error:
            answer.refuse(error)
        except Exception:
            _log.exception("request %s failed", answer.request_id)
            answer.refuse(InternalError(f"an internal error occurred; it is logged under {answer.request_id}"))
        if answer.stream is not None:
            await answer.begin(send, answer.stream)
            if answer.stream.farewell is not None:
                # Counted now: how long a client listens says nothing of the service.
                metrics.observe(answer.route, scope["method"], answer.status, time.perf_counter() - started)
            with metrics.open_stream(answer.route):
                await send_stream(answer.stream, receive, send, draining=self._draining, recheck=answer.recheck)
            if answer.stream.farewell is not None:
                return
        else:
            await answer.send(send, head_only=scope["method"] == "HEAD")
        metrics.observe(answer.route, scope["method"], answer.status, time.perf_counter() - started)

    async def _serve(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        headers = dict(scope["headers"])
        caller = await self._authenticator.authenticate(header_rules.secret(headers))
        answer.headers.append((b"anthropic-workspace-id", caller.workspace_id.encode()))
        header_rules.check_workspace(headers, caller)
        if self._strict_beta:
            header_rules.check_strictly(scope["headers"], headers)
        route, path = self._routes.find(scope["method"], scope["path"])
        answer.route = route.template
        if caller.session is not None:
            access.check(route.session_access, path, caller.session)
        body = await _read_body(receive, headers, self._max_body_bytes) if route.body_name is not None else b""
        result = await route.endpoint(**route.arguments(path, caller, scope["query_string"], body, headers))
        if isinstance(result, Stream):
            answer.stream = result
            answer.recheck = self._rechecking(headers, route, path, caller)
            return
        if isinstance(result, Reply):
            answer.headers += [(name.encode(), value.encode()) for name, value in result.headers.items()]
            result = result.body
        answer.body = orjson.dumps(result)

    def _rechecking(
        self, headers: header_rules.Headers, route: BoundRoute, path: Mapping[str, str], caller: Caller
    ) -> Recheck:
        """What a stream that goes on asks again and again: see `app.http.streams`."""

        async def recheck() -> bool:
            found = await self._authenticator.authenticate(header_rules.secret(headers))
            if found.session is not None:
                access.check(route.session_access, path, found.session)
            return found == caller

        return recheck


class _Answer:
    """One response in the making."""

    __slots__ = ("body", "headers", "recheck", "request_id", "route", "status", "stream")

    recheck: Recheck

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.route = "none"
        self.status = 200
        self.headers: list[tuple[bytes, bytes]] = [_JSON, (b"request-id", request_id.encode())]
        self.body = b""
        self.stream: Stream | None = None
        """Comes in place of a body."""

    def refuse(self, error: MemstoreError) -> None:
        """Make it the envelope of an error."""
        self.status = error.status
        self.headers += [(name.encode(), value.encode()) for name, value in error.headers().items()]
        self.body = envelope(error, self.request_id)

    async def begin(self, send: Send, stream: Stream) -> None:
        """Send the start of an answer whose body comes piece by piece."""
        self.headers[0] = (b"content-type", stream.media_type.encode())
        self.headers += _STREAM_HEADERS
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})

    async def send(self, send: Send, *, head_only: bool) -> None:
        """Send it; to a HEAD without the body, but with its length."""
        self.headers.append((b"content-length", b"%d" % len(self.body)))
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": b"" if head_only else self.body})
