"""The API's routes are bound by hand; this holds the binding to what the FastAPI declarations say."""

import inspect
import json
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any
from urllib.parse import urlencode

import pytest
from fastapi import APIRouter, Body, Cookie, Depends, FastAPI, Header, Path, Query, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel

from app.contract.actors import API_KEY, Actor, Caller
from app.contract.errors import InvalidRequest, MethodNotAllowed, NotFound
from app.http.documents import CallerParameter
from app.http.pages import PageQuery
from app.http.services import ServiceOf
from app.server.application import ROUTERS, create_app
from app.server.binding import BoundRoute, RouteTable, bind

STORES = "/v1/memory_stores"
CALLER = Caller("wrkspc_1", Actor(API_KEY, "apikey_1"))
FORM = "multipart/form-data"
"""A body that its route reads itself."""
IGNORED = {"beta"}
"""Accepted on every route, with no model of its own."""

APP = create_app()
DOCUMENT = APP.openapi()
EVERY_ROUTE = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
ROUTES = [route for route in EVERY_ROUTE if route.include_in_schema]
TABLE = RouteTable(ROUTES, APP.state.services)
OPERATIONS = [
    (method.upper(), path, operation)
    for path, operations in DOCUMENT["paths"].items()
    if path.startswith("/v1/")
    for method, operation in operations.items()
]
each_operation = pytest.mark.parametrize(
    ("method", "template", "operation"), OPERATIONS, ids=[f"{method} {path}" for method, path, _ in OPERATIONS]
)

Operation = dict[str, Any]


def sample(template: str) -> str:
    return template.replace("{", "a-").replace("}", "")


def find(method: str, template: str) -> BoundRoute:
    return TABLE.find(method, sample(template))[0]


def declared(operation: Operation, place: str) -> dict[str, Operation]:
    return {each["name"]: each for each in operation.get("parameters", []) if each["in"] == place}


def names_of(model: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def body_of(operation: Operation) -> bytes | None:
    """The document's own example of a body, if the operation takes one."""
    if "requestBody" not in operation or FORM in operation["requestBody"]["content"]:
        return None
    name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    schema = DOCUMENT["components"]["schemas"][name]
    fields = schema.get("properties", {})
    parts = [
        f'"{field}": {json.dumps(fields[field]["examples"][0])}' for field in fields if "examples" in fields[field]
    ]
    return ("{" + ", ".join(parts) + "}").encode()


def test_every_api_route_of_the_document_is_bound_and_no_other() -> None:
    bound = {(method, route.path) for route in ROUTES for method in route.methods or ()}
    assert bound == {(method, path) for method, path, _ in OPERATIONS}
    assert bound >= {("GET", STORES), ("POST", "/v1/sessions")}


def test_only_what_can_never_be_done_is_left_out_of_the_document() -> None:
    left_out = [(method, route.path) for route in EVERY_ROUTE if route not in ROUTES for method in route.methods or ()]
    assert left_out == [("POST", "/v1/sessions/{session_id}/resources")]


@each_operation
def test_a_path_finds_the_endpoint_that_was_declared_for_it(method: str, template: str, operation: Operation) -> None:
    (declaration,) = [route for route in ROUTES if route.path == template and method in (route.methods or ())]
    bound, parameters = TABLE.find(method, sample(template))
    assert bound.endpoint is declaration.endpoint
    assert bound.template == template
    assert parameters == {name: f"a-{name}" for name in declared(operation, "path")}


@each_operation
def test_the_query_is_read_by_the_names_in_the_document(method: str, template: str, operation: Operation) -> None:
    bound = find(method, template)
    known = names_of(bound.query_model) if bound.query_model else set()
    assert known | bound.ignored_query == set(declared(operation, "query"))
    assert not known & bound.ignored_query
    assert bound.ignored_query >= IGNORED


@each_operation
def test_the_query_has_the_defaults_in_the_document(method: str, template: str, operation: Operation) -> None:
    bound = find(method, template)
    query = {} if bound.default_query is None else bound.default_query.model_dump(by_alias=True, mode="json")
    documented = declared(operation, "query")
    assert query == {name: documented[name]["schema"].get("default") for name in query}


@each_operation
def test_the_body_is_read_by_the_model_in_the_document(method: str, template: str, operation: Operation) -> None:
    bound = find(method, template)
    if "requestBody" not in operation or FORM in operation["requestBody"]["content"]:
        assert bound.body_name is None
        assert (bound.upload_name is not None) is ("requestBody" in operation)
        return
    assert bound.body_model is not None
    name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert bound.body_model.__name__ == name
    assert bound.body_optional is not operation["requestBody"].get("required", False)


@each_operation
def test_every_argument_of_the_endpoint_is_given(method: str, template: str, operation: Operation) -> None:
    bound, path = TABLE.find(method, sample(template))
    given = bound.arguments(path, CALLER, b"", body_of(operation) or b"")
    # An upload is given by the gateway, which has the connection.
    assert given.keys() | ({bound.upload_name} - {None}) == inspect.signature(bound.endpoint).parameters.keys()
    assert CALLER in given.values()


@each_operation
def test_a_body_may_be_left_out_only_where_the_document_says_so(
    method: str, template: str, operation: Operation
) -> None:
    bound, path = TABLE.find(method, sample(template))
    if operation.get("requestBody", {}).get("required", False) and bound.upload_name is None:
        with pytest.raises(InvalidRequest, match="JSON object is required"):
            bound.arguments(path, CALLER, b"", b"")
    else:
        assert bound.arguments(path, CALLER, b"", b"")


@each_operation
def test_an_unknown_query_parameter_is_refused_and_an_ignored_one_is_not(
    method: str, template: str, operation: Operation
) -> None:
    bound, path = TABLE.find(method, sample(template))
    body = body_of(operation) or b""
    with pytest.raises(InvalidRequest, match=r"^unexpected query parameter: surprise$"):
        bound.arguments(path, CALLER, b"surprise=1", body)
    plain = bound.arguments(path, CALLER, b"", body)
    for name in bound.ignored_query:
        assert bound.arguments(path, CALLER, f"{name}=1&{name}=2".encode(), body) == plain


@each_operation
def test_every_method_that_the_path_does_not_have_is_refused_with_those_it_has(
    method: str, template: str, operation: Operation
) -> None:
    allowed = sorted(one for one, path, _ in OPERATIONS if path == template)
    assert method in allowed
    for other in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY", method.lower()}:
        if other in allowed:
            continue
        with pytest.raises(MethodNotAllowed) as refusal:
            TABLE.find(other, sample(template))
        assert refusal.value.headers() == {"allow": ", ".join(allowed)}
        assert other in refusal.value.message


@pytest.mark.parametrize(
    "path",
    [
        "/v1",
        "/v1/",
        "/v1/memory_store",
        f"{STORES}/",
        f"{STORES}//memories",
        f"{STORES}/x/",
        f"{STORES}/x/search",
        f"{STORES}/x/archive/",
        f"{STORES}/x/memories/",
        f"{STORES}/x/memories/y/z",
        f"{STORES}/x/memory_versions/y/erase",
        f"/{STORES}",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_a_path_that_no_route_has_is_not_found_whatever_the_method(method: str, path: str) -> None:
    with pytest.raises(NotFound):
        TABLE.find(method, path)


@pytest.mark.parametrize("name", ["é", "a\0", "\n", "\x7f", "\u200b"])
def test_a_text_that_can_be_no_id_is_not_found(name: str) -> None:
    with pytest.raises(NotFound):
        TABLE.find("GET", f"{STORES}/{name}")


@pytest.mark.parametrize(
    ("query", "told"),
    [
        (b"limit=1&limit=2", "limit: was given more than once"),
        (b"limit=0", "limit: "),
        (b"limit=1.0", "limit: "),
        (b"limit=", "limit: "),
        (b"limit", "limit: "),
        (b"view=all", "view: "),
        (b"depth=2", "depth: "),
        (b"path_prefix=%ff", "not UTF-8"),
    ],
)
def test_a_query_that_breaks_a_rule_is_refused_with_the_parameter(query: bytes, told: str) -> None:
    bound, path = TABLE.find("GET", f"{STORES}/x/memories")
    with pytest.raises(InvalidRequest, match=told):
        bound.arguments(path, CALLER, query, b"")


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        (STORES, "created_at[gte]", "2026-11-20T00:00:00Zzz"),
        (STORES, "created_at[lte]", "yesterday"),
        (STORES, "include_archived", "1"),
        (f"{STORES}/x/memory_versions", "operation", "renamed"),
    ],
)
def test_a_refusal_of_a_query_names_the_parameter_as_it_was_sent(path: str, name: str, value: str) -> None:
    bound, parameters = TABLE.find("GET", path)
    with pytest.raises(InvalidRequest) as refusal:
        bound.arguments(parameters, CALLER, urlencode({name: value}).encode(), b"")
    assert refusal.value.message.startswith(f"{name}: ")


def test_a_query_is_decoded_once() -> None:
    bound, path = TABLE.find("GET", f"{STORES}/x/memories")
    query = bound.arguments(path, CALLER, b"path_prefix=%2Fa%2520b+c%2F%C3%A4%2F", b"")["query"]
    assert query.path_prefix == "/a%20b c/ä/"


def test_a_route_may_name_its_parameters_as_it_likes() -> None:
    app = FastAPI()

    @app.get("/v1/things/{thing}/parts/{part}")
    async def find_part(part: str, thing: str) -> dict[str, str]:
        return {"part": part, "thing": thing}

    (route,) = [each for each in app.routes if isinstance(each, APIRoute)]
    bound, path = RouteTable([route], {}).find("GET", "/v1/things/a/parts/b")
    assert bound.arguments(path, CALLER, b"", b"") == {"thing": "a", "part": "b"}
    assert bind(route, {}).template == route.path


def refusal_of(declare: Callable[[APIRouter], object]) -> str:
    """What is said at the start about the routes that `declare` adds."""
    router = APIRouter(prefix="/v1/things")
    declare(router)
    with pytest.raises(TypeError) as caught:
        RouteTable([route for route in router.routes if isinstance(route, APIRoute)], {})
    return str(caught.value)


def test_a_parameter_that_would_never_be_given_is_refused_at_the_start() -> None:
    async def number(thing_id: str, other: int) -> None: ...

    async def cookie(thing_id: Annotated[str, Path()], other: Annotated[str, Cookie()]) -> None: ...

    async def dependent(thing_id: Annotated[str, Path()], other: Annotated[str, Depends(sample)]) -> None: ...

    async def bare(thing_id: Annotated[str, Path()], other: Request) -> None: ...

    async def elsewhere(thing_id: Annotated[str, Path()], other: Annotated[str, Path()]) -> None: ...

    assert "for its parameter 'other'" in refusal_of(lambda router: router.get("/{thing_id}/{other}")(number))
    for endpoint in (cookie, dependent, bare):
        declare = partial(lambda router, endpoint: router.get("/{thing_id}")(endpoint), endpoint=endpoint)
        assert "for its parameter 'other'" in refusal_of(declare)

    async def untyped(thing_id: Annotated[str, Path()], other) -> None: ...  # type: ignore[no-untyped-def]

    async def scalar(thing_id: Annotated[str, Path()], other: Annotated[int, Query()] = 0) -> None: ...

    async def text(thing_id: Annotated[str, Path()], other: Annotated[str, Body()]) -> None: ...

    async def several(thing_id: Annotated[str, Path()], other: Annotated[list[PageQuery], Body()]) -> None: ...

    async def callers(thing_id: Annotated[str, Path()], one: CallerParameter, other: CallerParameter) -> None: ...

    async def counted(thing_id: Annotated[str, Path()], other: Annotated[int, Header()] = 0) -> None: ...

    async def unserved(thing_id: Annotated[str, Path()], other: Annotated[Any, Depends(ServiceOf(object))]) -> None: ...

    for wrong in (untyped, scalar, text, several, callers, counted, unserved):
        declare = partial(lambda router, endpoint: router.post("/{thing_id}")(endpoint), endpoint=wrong)
        assert "for its parameter 'other'" in refusal_of(declare)

    table = APIRouter()
    table.get("/{thing_id}/{other}")(elsewhere)
    RouteTable([route for route in table.routes if isinstance(route, APIRoute)], {})


def test_routes_that_can_not_be_told_apart_are_refused_at_the_start() -> None:
    async def one(thing_id: Annotated[str, Path()]) -> None: ...

    async def nothing() -> None: ...

    async def other(name: Annotated[str, Path()]) -> None: ...

    def two_names(router: APIRouter) -> None:
        router.get("/{thing_id}")(one)
        router.post("/{name}")(other)

    def twice(router: APIRouter) -> None:
        router.get("/{thing_id}")(one)
        router.get("/{thing_id}")(one)

    assert "another route has 'thing_id' for {name}" in refusal_of(two_names)
    assert "there are two routes for it" in refusal_of(twice)
    assert "does not take thing_id" in refusal_of(lambda router: router.get("/{thing_id}")(nothing))
