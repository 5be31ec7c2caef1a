"""The page with the OpenAPI document (app.server.reference): nobody without a key makes the others wait for it."""

import asyncio
import threading
from typing import Any

import orjson
from fastapi import Request

from app.server.application import create_app
from app.server.reference import Reference


def asked(prefix: str = "") -> Request:
    return Request({"type": "http", "root_path": prefix, "headers": []})


def test_the_document_is_built_once_beside_the_loop_however_many_ask() -> None:
    built = []

    def build() -> dict[str, Any]:
        built.append(threading.current_thread())
        return {"openapi": "3.1.0", "paths": {}}

    async def ask() -> list[bytes | memoryview]:
        reference = Reference(build)
        answers = await asyncio.gather(*(reference.answer(asked()) for _ in range(20)))
        return [answer.body for answer in [*answers, await reference.answer(asked())]]

    bodies = asyncio.run(ask())
    assert len(built) == 1
    assert built[0] is not threading.current_thread()
    assert all(body is bodies[0] for body in bodies), "the same bytes for everybody"
    assert orjson.loads(bodies[0]) == {"openapi": "3.1.0", "paths": {}}


def test_a_build_that_failed_is_tried_again() -> None:
    answers: list[dict[str, Any]] = [{"openapi": "3.1.0"}]

    def build() -> dict[str, Any]:
        if len(answers) == 1:
            answers.append(answers[0])
            raise MemoryError
        return answers[0]

    async def ask() -> bytes | memoryview:
        reference = Reference(build)
        (failed,) = await asyncio.gather(reference.answer(asked()), return_exceptions=True)
        assert isinstance(failed, MemoryError)
        return (await reference.answer(asked())).body

    assert orjson.loads(asyncio.run(ask())) == {"openapi": "3.1.0"}


def test_behind_a_prefix_the_document_names_it_and_is_still_the_same() -> None:
    reference = Reference(lambda: {"openapi": "3.1.0", "paths": {}})
    body = asyncio.run(reference.answer(asked("/memstore"))).body
    assert orjson.loads(body) == {"openapi": "3.1.0", "paths": {}, "servers": [{"url": "/memstore"}]}


def test_the_application_serves_it_in_place_of_fastapis_own() -> None:
    (route,) = [route for route in create_app().router.routes if getattr(route, "path", "") == "/openapi.json"]
    assert isinstance(getattr(getattr(route, "endpoint", None), "__self__", None), Reference)
