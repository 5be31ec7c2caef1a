"""`/openapi.json`: built once, beside the loop, and kept as bytes.

It asks for no key, is large and takes a second to build: no caller of it may make the others wait.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
from fastapi import Request
from fastapi.responses import Response


class Reference:
    """The OpenAPI document of an application, which has no `servers` of its own."""

    def __init__(self, build: Callable[[], dict[str, Any]]) -> None:
        """`build`: makes the document; it is called in a thread."""
        self._build = build
        self._turn = asyncio.Lock()
        self._body = b""

    async def answer(self, request: Request) -> Response:
        """The document; behind a path prefix with that as its server."""
        if not self._body:
            async with self._turn:
                if not self._body:
                    self._body = await asyncio.to_thread(lambda: orjson.dumps(self._build()))
        body, prefix = self._body, request.scope.get("root_path", "")
        if prefix:
            body = body[:-1] + b',"servers":' + orjson.dumps([{"url": prefix}]) + b"}"
        return Response(body, media_type="application/json")
