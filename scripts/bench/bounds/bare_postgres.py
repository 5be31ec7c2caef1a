"""The bound for reads on PostgreSQL: ASGI without a framework, one query through asyncpg, the answer's bytes.

The file named in BENCH_ANSWERS has the database URL, the statement, and for each URL its arguments and (where
it was recorded) the body. A listing's body is not recorded but built from the rows, the cheapest way.
"""

import json
import os
from pathlib import Path
from typing import Any

import asyncpg

from scripts.bench.bounds.listing import Listing

_POOL_SIZE = 8

_plan = json.loads(Path(os.environ["BENCH_ANSWERS"]).read_text())
_SQL: str = _plan["sql"]
_ARGUMENTS: dict[str, list[Any]] = {url: answer["arguments"] for url, answer in _plan["answers"].items()}
_BODIES: dict[str, bytes] = {
    url: answer["body"].encode() for url, answer in _plan["answers"].items() if "body" in answer
}
_listing = Listing(**_plan["listing"]) if "listing" in _plan else None
_pool: Any = None


async def _no_reset(_: Any) -> None:
    """No statement of ours leaves state in the session."""


async def _lifespan(receive: Any, send: Any) -> None:
    global _pool
    await receive()
    _pool = await asyncpg.create_pool(
        _plan["database_url"], min_size=_POOL_SIZE, max_size=_POOL_SIZE, reset=_no_reset, max_queries=10**9
    )
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await _pool.close()
    await send({"type": "lifespan.shutdown.complete"})


async def app(scope: Any, receive: Any, send: Any) -> None:
    """The ASGI application."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    url = scope["raw_path"].decode()
    if scope["query_string"]:
        url += "?" + scope["query_string"].decode()
    arguments = _ARGUMENTS[url]
    connection = await _pool.acquire()
    try:
        rows = await connection.fetch(_SQL, *arguments)
    finally:
        await _pool.release(connection)
    body = _BODIES[url] if _listing is None else _listing.body(rows)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
