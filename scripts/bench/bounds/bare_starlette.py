"""The bound for reads on SQLite: one Starlette route that answers recorded bytes, without any database."""

import json
import os
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_answers = json.loads(Path(os.environ["BENCH_ANSWERS"]).read_text())["answers"]
_BODIES = {url.rpartition("/")[2]: answer["body"].encode() for url, answer in _answers.items()}


async def _memory(request: Request) -> Response:
    return Response(_BODIES[request.path_params["memory_id"]], media_type="application/json")


app = Starlette(routes=[Route("/v1/memory_stores/{store_id}/memories/{memory_id}", _memory)])
