"""From an ASGI request to a route's function and back, for the API's own routes.

The routes are declared on FastAPI routers in the ordinary way, and FastAPI writes the OpenAPI document from them.
Serving a call through FastAPI's own machinery costs more than the rest of the request (docs/performance.md), so
the same declarations are bound here once, at start: the path by a dictionary per segment, query and body by the
same pydantic models, the services by type. A route's function is called with the same arguments either way.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints
from urllib.parse import parse_qsl

from fastapi import params as fastapi_params
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from app.contract.actors import Caller
from app.contract.errors import InvalidRequest, MethodNotAllowed, NotFound
from app.http.access import SessionAccess, session_access
from app.http.services import ServiceOf
from app.http.uploads import Upload
from app.server.envelope import bad_body, bad_query

_IGNORED_PARAMETERS = frozenset({"beta"})
"""Old SDKs add `beta=true` to every URL."""
_OTHER_APIS = (
    "/v1/messages",
    "/v1/complete",
    "/v1/models",
    "/v1/files",
    "/v1/skills",
    "/v1/vaults",
    "/v1/organizations",
)
"""How paths begin that the same SDK knows."""
_NO_HEADERS: Mapping[bytes, bytes] = {}


def nothing_at(path: str) -> NotFound:
    """The refusal of a path that no route has, with what was probably meant."""
    if path.startswith("/v1/v1/"):
        return NotFound(f"there is nothing at {path!r}: the base URL must not end in /v1")
    if path.startswith(_OTHER_APIS):
        return NotFound(
            f"there is nothing at {path!r}: Memstore has the API of memory stores and sessions, not this one"
        )
    return NotFound(f"there is nothing at {path!r}")


@dataclass(slots=True)
class BoundRoute:
    """One operation, ready to be called."""

    endpoint: Callable[..., Awaitable[Any]]
    template: str
    operation: str = ""
    """What it does, in a word: the name of its function."""
    caller_name: str | None = None
    query_name: str | None = None
    query_model: type[BaseModel] | None = None
    ignored_query: frozenset[str] = _IGNORED_PARAMETERS
    body_name: str | None = None
    body_model: type[BaseModel] | None = None
    body_optional: bool = False
    header_names: dict[str, bytes] = field(default_factory=dict)
    """Headers that the endpoint takes, by the parameter's name."""
    upload_name: str | None = None
    """The parameter of a route that reads its body itself."""
    services: dict[str, Any] = field(default_factory=dict)
    default_query: BaseModel | None = None
    session_access: SessionAccess | None = None

    def arguments(
        self,
        path: Mapping[str, str],
        caller: Caller,
        query_string: bytes,
        body: bytes,
        headers: Mapping[bytes, bytes] = _NO_HEADERS,
    ) -> dict[str, Any]:
        """The endpoint's keyword arguments.

        Raises:
            InvalidRequest: query or body do not fit their models.

        """
        arguments: dict[str, Any] = {**self.services, **path}
        if self.caller_name is not None:
            arguments[self.caller_name] = caller
        if self.query_name is not None:
            arguments[self.query_name] = self._query(query_string)
        elif query_string:
            self._refuse_query(query_string)
        if self.body_name is not None:
            arguments[self.body_name] = self._body(body)
        for parameter, name in self.header_names.items():
            value = headers.get(name)
            arguments[parameter] = None if value is None else value.decode("latin-1")
        return arguments

    def _pairs(self, query_string: bytes) -> dict[str, str | list[str]]:
        """Values by name; those whose name ends with `[]` in a list."""
        values: dict[str, str | list[str]] = {}
        try:
            pairs = parse_qsl(query_string.decode("latin-1"), keep_blank_values=True, errors="strict")
        except UnicodeDecodeError:
            raise InvalidRequest("the query string is not UTF-8 where it is percent-encoded") from None
        for name, value in pairs:
            if name in self.ignored_query:
                continue
            if name.endswith("[]"):
                listed = values.setdefault(name, [])
                assert isinstance(listed, list)
                listed.append(value)
                continue
            if name in values:
                raise InvalidRequest(f"{name}: was given more than once")
            values[name] = value
        return values

    def _query(self, query_string: bytes) -> BaseModel:
        assert self.query_model is not None
        if not query_string and self.default_query is not None:
            return self.default_query
        try:
            return self.query_model.model_validate(self._pairs(query_string))
        except ValidationError as error:
            raise bad_query(error) from None

    def _refuse_query(self, query_string: bytes) -> None:
        for name in self._pairs(query_string):
            raise InvalidRequest(f"unexpected query parameter: {name}")

    def _body(self, body: bytes) -> BaseModel:
        assert self.body_model is not None
        if not body:
            if self.body_optional:
                return self.body_model()
            raise InvalidRequest("a JSON object is required as the request body")
        try:
            return self.body_model.model_validate_json(body)
        except ValidationError as error:
            raise bad_body(error) from None


def bind(route: APIRoute, services: Mapping[type[Any], Any]) -> BoundRoute:
    """Read a route's signature as FastAPI does.

    Raises:
        TypeError: it has a parameter that would never be given, or its path one that it does not take.

    """
    bound = BoundRoute(route.endpoint, route.path, route.name)
    hints = get_type_hints(route.endpoint, include_extras=True)
    in_path = {segment[1:-1] for segment in route.path.split("/") if segment.startswith("{")}
    for name in inspect.signature(route.endpoint).parameters:
        hint = hints.get(name)
        kind, *marks = get_args(hint) if hasattr(hint, "__metadata__") else (hint,)
        mark = marks[-1] if marks else None
        if kind is Caller and bound.caller_name is None:
            bound.caller_name = name
        elif kind is Upload and bound.upload_name is None:
            bound.upload_name = name
        elif isinstance(mark, fastapi_params.Depends) and _service(mark) in services:
            bound.services[name] = services[_service(mark)]
        elif isinstance(mark, fastapi_params.Query) and bound.query_name is None and _is_model(kind):
            bound.query_name, bound.query_model = name, kind
            bound.default_query = kind()
        elif isinstance(mark, fastapi_params.Body) and bound.body_name is None and _is_model(_unless_none(kind)):
            bound.body_name, bound.body_model = name, _unless_none(kind)
            bound.body_optional = bound.body_model is not kind
        elif isinstance(mark, fastapi_params.Header) and _unless_none(kind) is str:
            bound.header_names[name] = (mark.alias or name.replace("_", "-")).encode()
        elif name in in_path and kind is str and (mark is None or isinstance(mark, fastapi_params.Path)):
            in_path.remove(name)
        else:
            raise TypeError(f"{route.path}: nothing is known to give {route.name!r} for its parameter {name!r}")
    if in_path:
        raise TypeError(f"{route.path}: {route.name!r} does not take {', '.join(sorted(in_path))}")
    extra = route.openapi_extra or {}
    bound.ignored_query |= set(extra.get("x-ignored-query", ()))
    bound.session_access = session_access(extra, route.path)
    return bound


def _service(mark: fastapi_params.Depends) -> Any:
    return mark.dependency.kind if isinstance(mark.dependency, ServiceOf) else None


def _unless_none(kind: Any) -> Any:
    """`X` of `X | None`, and any other kind itself."""
    parts = get_args(kind) if isinstance(kind, UnionType) or get_origin(kind) is Union else (kind,)
    others = [part for part in parts if part is not type(None)]
    return others[0] if len(others) == 1 else kind


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


@dataclass(slots=True)
class _Node:
    literal: dict[str, "_Node"] = field(default_factory=dict)
    parameter: "_Node | None" = None
    parameter_name: str = ""
    methods: dict[str, BoundRoute] = field(default_factory=dict)


class RouteTable:
    """Finds the bound route of a method and path, segment by segment."""

    def __init__(self, routes: Sequence[APIRoute], services: Mapping[type[Any], Any]) -> None:
        self._root = _Node()
        for route in routes:
            bound = bind(route, services)
            node = self._root
            for segment in route.path[1:].split("/"):
                if segment.startswith("{"):
                    if node.parameter is None:
                        node.parameter, node.parameter_name = _Node(), segment[1:-1]
                    if node.parameter_name != segment[1:-1]:
                        raise TypeError(f"{route.path}: another route has {node.parameter_name!r} for {segment}")
                    node = node.parameter
                else:
                    node = node.literal.setdefault(segment, _Node())
            for method in route.methods or ():
                if method in node.methods:
                    raise TypeError(f"{method} {route.path}: there are two routes for it")
                node.methods[method] = bound

    def find(self, method: str, path: str) -> tuple[BoundRoute, dict[str, str]]:
        """The route and its path parameters.

        Raises:
            NotFound: there is nothing at this path.
            MethodNotAllowed: there is, but not for this method.

        """
        node, parameters = self._root, {}
        for segment in path[1:].split("/"):
            child = node.literal.get(segment)
            if child is None:
                child = node.parameter
                if child is None or not segment:
                    raise nothing_at(path)
                parameters[node.parameter_name] = segment
            node = child
        route = node.methods.get(method)
        if route is not None:
            # An ID is ASCII; anything else names nothing, and need not reach the database.
            for segment in parameters.values():
                if not segment.isascii() or not segment.isprintable():
                    raise NotFound(f"{segment!r} was not found")
            return route, parameters
        if node.methods:
            raise MethodNotAllowed(method, tuple(sorted(node.methods)))
        raise nothing_at(path)
