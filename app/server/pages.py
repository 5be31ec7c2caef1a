"""What a person finds who opens the service's address in a browser, and the headers of every page."""

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from starlette.datastructures import MutableHeaders

from app.http.asgi import Application, Message, Receive, Scope, Send

router = APIRouter(include_in_schema=False)

_HOME = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>Memstore</title>
<style>
  :root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }
  body { max-width: 36rem; margin: 4rem auto; padding: 0 1rem }
</style>
<h1>Memstore</h1>
<p>Memory stores for agents. This is the address that programs use as their base URL, with an API key.</p>
<ul>
  <li><a href="docs">API reference</a></li>
  <li><a href="openapi.json">OpenAPI document</a></li>
  <li><a href="readyz">Whether the service is ready</a></li>
</ul>
</html>
"""

_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""The page of the reference holds its own script, so that inline ones must be allowed; nothing comes from elsewhere."""


@router.get("/")
async def home() -> Response:
    """Three links."""
    return HTMLResponse(_HOME)


@router.get("/robots.txt")
async def robots() -> Response:
    """Nothing here is for search engines."""
    return PlainTextResponse("User-agent: *\nDisallow: /\n")


class PageHeaders:
    """Adds to every page what a browser is to refuse."""

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                if headers.get("content-type", "").startswith("text/html"):
                    headers.update(_HEADERS)
            await send(message)

        await self._app(scope, receive, with_headers)
