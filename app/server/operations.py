"""A port of their own for operators: health and metrics there, and no metrics where everybody can ask."""

from app.contract import ids
from app.http.asgi import Application, Receive, Scope, Send
from app.server.binding import nothing_at
from app.server.envelope import envelope

_PAGES = frozenset({"/healthz", "/readyz", "/metrics"})
_HIDDEN = "/metrics"


class Operations:
    """Tells by the port that a request came to what it may see."""

    def __init__(self, app: Application, port: int) -> None:
        """port: the operators' own."""
        self._app = app
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or say that there is nothing."""
        if scope["type"] == "http":
            server = scope.get("server")
            is_theirs = server is not None and server[1] == self._port
            path: str = scope["path"]
            if (path not in _PAGES) if is_theirs else (path == _HIDDEN):
                await _nothing(path, send)
                return
        await self._app(scope, receive, send)


async def _nothing(path: str, send: Send) -> None:
    refusal, request_id = nothing_at(path), ids.new(ids.REQUEST)
    body = envelope(refusal, request_id)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"request-id", request_id.encode()),
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
