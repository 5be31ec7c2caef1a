"""The coverage table: every route and field of the vendor's memory API beside what this service serves.

The agents, environments and sessions around the memory are also in it.
Nothing in it is typed by hand. The vendor's side is what the installed SDK sends (each method is called
once against a transport that records the request) and what its response models name. Our side is the
OpenAPI document of the application.
"""

import inspect
import json
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import anthropic
import httpx2
import pydantic
from anthropic.resources.beta.agents import Agents, Versions
from anthropic.resources.beta.environments import Environments
from anthropic.resources.beta.memory_stores import Memories, MemoryStores, MemoryVersions
from anthropic.resources.beta.sessions import Resources, Sessions

Alternatives = frozenset[str]
"""What a JSON value may be, in the words of `_WORDS`, `"literal"` or `map of …`."""

Fields = dict[str, Alternatives]
"""Dotted field names, `[]` after a list: `data[].path`."""

_WORDS: Final[dict[object, str]] = {
    str: "string",
    int: "integer",
    bool: "boolean",
    float: "number",
    datetime: "date-time",
    type(None): "null",
}
_RESOURCES: Final[dict[str, type]] = {
    "memory_stores.": MemoryStores,
    "memory_stores.memories.": Memories,
    "memory_stores.memory_versions.": MemoryVersions,
    "agents.": Agents,
    "agents.versions.": Versions,
    "environments.": Environments,
    "sessions.": Sessions,
    "sessions.resources.": Resources,
}
_NOT_FIELDS: Final = {"self", "extra_headers", "extra_query", "extra_body", "timeout"}
_METHODS: Final = ("get", "head", "post", "put", "patch", "delete")


@dataclass(frozen=True, slots=True)
class Operation:
    """One call: `place` names in `fields` are header, query, body and response."""

    call: str
    method: str
    route: str
    fields: dict[str, Fields]


@dataclass(frozen=True, slots=True)
class Row:
    """One field of the vendor's API, and our type for it or None when it is not served."""

    place: str
    name: str
    vendor: Alternatives
    ours: Alternatives | None


# The vendor's side: what the SDK sends and names.


def _members(annotation: Any) -> list[Any]:
    """The alternatives of a union, flattened; `Annotated` wrappers are taken off and `Omit` is left out."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [member for part in typing.get_args(annotation) for member in _members(part)]
    if origin in (typing.Required, typing.NotRequired):
        return _members(typing.get_args(annotation)[0])
    return [] if annotation is anthropic.Omit else [annotation]


def _children(member: Any) -> Mapping[str, Any]:
    """The fields of a response model or of a request's TypedDict, by name; empty for anything else."""
    if not isinstance(member, type):
        return {}
    if issubclass(member, pydantic.BaseModel):
        return {name: info.annotation for name, info in member.model_fields.items()}
    if hasattr(member, "__required_keys__"):
        return typing.get_type_hints(member)
    return {}


def _is_list(member: Any) -> bool:
    """Whether it is an array in JSON: a list, or in a request what can be read as one."""
    return typing.get_origin(member) in (list, Iterable, Sequence)


def _vendor_word(member: Any) -> Alternatives:
    origin, arguments = typing.get_origin(member), typing.get_args(member)
    if origin is typing.Literal:
        return frozenset(json.dumps(value) for value in arguments)
    if _is_list(member):
        return frozenset({"array"})
    if origin is dict:
        return frozenset({f"map of {_render(_vendor_type(arguments[1]))}"})
    return frozenset({_WORDS.get(member, "object")})


def _vendor_type(annotation: Any) -> Alternatives:
    found = frozenset(word for member in _members(annotation) for word in _vendor_word(member))
    if "string" in found:
        # Some texts are named for convenience, others are as good.
        found = frozenset(word for word in found if not word.startswith('"'))
    # In JSON a time is a text: "date-time or text" says the same as "date-time".
    return found - {"string"} if "date-time" in found else found


def _add(fields: Fields, name: str, found: Alternatives) -> None:
    fields[name] = fields.get(name, frozenset()) | found


def _vendor_below(annotation: Any, name: str) -> Fields:
    """The fields inside a value: of the object, of each object of a union, of a list's items."""
    fields: Fields = {}
    for member in _members(annotation):
        if _is_list(member):
            for inner, found in _vendor_below(typing.get_args(member)[0], f"{name}[]").items():
                _add(fields, inner, found)
        for child, child_annotation in _children(member).items():
            full = f"{name}.{child}" if name else child
            _add(fields, full, _vendor_type(child_annotation))
            for inner, found in _vendor_below(child_annotation, full).items():
                _add(fields, inner, found)
    return fields


def _marker(parameter: str) -> str:
    return f"sent-{parameter}"


def _places(request: httpx2.Request, parameters: list[str]) -> Iterator[tuple[str, str, str]]:
    """Where each parameter went: (parameter, place, name on the wire). Those of the path are left out."""
    body = json.loads(request.content) if request.content else {}
    for parameter in parameters:
        marker = _marker(parameter)
        for name, value in request.headers.items():
            if marker in value.split(","):
                yield parameter, "header", name
        for name, value in request.url.params.multi_items():
            if value == marker:
                yield parameter, "query", name
        for name, value in body.items():
            if value in (marker, [marker]):
                yield parameter, "body", name


def _vendor_operation(call: str, resource: type, method: Callable[..., object]) -> Operation:
    """Call one method with a marker in each parameter and read the request it makes."""
    requests: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        return httpx2.Response(200, json={})

    transport = httpx2.Client(transport=httpx2.MockTransport(answer))
    client = anthropic.Anthropic(api_key="unused", base_url="http://recorded.invalid", http_client=transport)
    parameters = [name for name in inspect.signature(method).parameters if name not in _NOT_FIELDS]
    hints = typing.get_type_hints(method, include_extras=True)
    lists = {name for name in parameters if any(_is_list(member) for member in _members(hints[name]))}
    method(resource(client), **{name: [_marker(name)] if name in lists else _marker(name) for name in parameters})

    request = requests[0]
    fields: dict[str, Fields] = {"header": {}, "query": {}, "body": {}, "response": {}}
    route = request.url.path
    for name in parameters:
        route = route.replace(_marker(name), f"{{{name}}}")
    for name, place, wire_name in _places(request, parameters):
        annotation = str if place == "header" else hints[name]
        fields[place][wire_name] = _vendor_type(annotation)
        fields[place] |= _vendor_below(annotation, wire_name)
    fields["response"] = _vendor_below(hints["return"], "")
    return Operation(call, request.method, route, fields)


def vendor_operations() -> list[Operation]:
    """Every method of the SDK's resources that are served: the request it makes, the response it expects."""
    operations = [
        _vendor_operation(f"{prefix}{name}", resource, method)
        for prefix, resource in _RESOURCES.items()
        for name, method in inspect.getmembers(resource, inspect.isfunction)
        if "extra_query" in inspect.signature(method).parameters
    ]
    return sorted(operations, key=lambda operation: (operation.route.count("/"), operation.route, operation.method))


# Our side: the OpenAPI document.


def _resolve(schema: Mapping[str, Any], document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The alternatives of a schema, with references followed and unions flattened."""
    if "$ref" in schema:
        found: Any = document
        for part in str(schema["$ref"]).removeprefix("#/").split("/"):
            found = found[part]
        return _resolve(found, document)
    alternatives: list[Mapping[str, Any]] = []
    for keyword in ("anyOf", "oneOf", "allOf"):
        for part in schema.get(keyword, []):
            alternatives += _resolve(part, document)
    return alternatives or [schema]


def _our_word(schema: Mapping[str, Any], document: Mapping[str, Any]) -> Alternatives:
    if "const" in schema:
        return frozenset({json.dumps(schema["const"])})
    if "enum" in schema:
        return frozenset(json.dumps(value) for value in schema["enum"])
    if schema.get("format") == "date-time":
        return frozenset({"date-time"})
    kinds = schema.get("type", "any")
    words = frozenset([kinds] if isinstance(kinds, str) else kinds)
    if "object" in words and isinstance(schema.get("additionalProperties"), Mapping) and "properties" not in schema:
        return words - {"object"} | {f"map of {_render(_our_type(schema['additionalProperties'], document))}"}
    return words


def _our_type(schema: Mapping[str, Any], document: Mapping[str, Any]) -> Alternatives:
    return frozenset(word for part in _resolve(schema, document) for word in _our_word(part, document))


def _our_below(schema: Mapping[str, Any], name: str, document: Mapping[str, Any]) -> Fields:
    fields: Fields = {}
    for part in _resolve(schema, document):
        for inner, found in _our_below(part["items"], f"{name}[]", document).items() if "items" in part else ():
            _add(fields, inner, found)
        for child, child_schema in part.get("properties", {}).items():
            full = f"{name}.{child}" if name else child
            _add(fields, full, _our_type(child_schema, document))
            for inner, found in _our_below(child_schema, full, document).items():
                _add(fields, inner, found)
    return fields


def _json_schema(holder: Mapping[str, Any]) -> Mapping[str, Any]:
    schema: Mapping[str, Any] = holder.get("content", {}).get("application/json", {}).get("schema", {})
    return schema


def served_operations(document: Mapping[str, Any]) -> list[Operation]:
    """Every operation of an OpenAPI document; `call` is its operation ID."""
    operations = []
    for route, item in document["paths"].items():
        for method in _METHODS:
            if (entry := item.get(method)) is None:
                continue
            fields: dict[str, Fields] = {"header": {}, "query": {}, "body": {}, "response": {}}
            for parameter in [*item.get("parameters", []), *entry.get("parameters", [])]:
                if parameter["in"] in fields:
                    kind = _our_type(parameter["schema"], document)
                    # A parameter is there or not; "or null" is how the document says it is optional.
                    fields[parameter["in"]][parameter["name"]] = kind - {"null"}
            fields["body"] = _our_below(_json_schema(entry.get("requestBody", {})), "", document)
            fields["response"] = _our_below(_json_schema(entry["responses"].get("200", {})), "", document)
            operations.append(Operation(entry.get("operationId", ""), method.upper(), route, fields))
    return operations


# The comparison.


def _without_names(route: str) -> str:
    return "/".join("{}" if segment.startswith("{") else segment for segment in route.split("/"))


def same_route(one: str, other: str) -> bool:
    """Whether two routes differ at most in the names of their path parameters."""
    return _without_names(one) == _without_names(other)


def _key(operation: Operation) -> tuple[str, str]:
    return operation.method, _without_names(operation.route)


def rows(vendor: Operation, ours: Operation | None) -> list[Row]:
    """The vendor's fields of one call in the order of the SDK, each with what we serve."""
    found = []
    for place, fields in vendor.fields.items():
        served = ours.fields[place] if ours else {}
        if place == "header":
            served = {name.lower(): kind for name, kind in served.items()}
        found += [Row(place, name, kind, served.get(name)) for name, kind in fields.items()]
    return found


Comparison = tuple[Operation, Operation | None, list[Row]]


def compare(document: Mapping[str, Any]) -> list[Comparison]:
    """Each call of the SDK with the operation that serves it (None: no such route) and its fields."""
    served = {_key(operation): operation for operation in served_operations(document)}
    pairs = [(vendor, served.get(_key(vendor))) for vendor in vendor_operations()]
    return [(vendor, ours, rows(vendor, ours)) for vendor, ours in pairs]


def _render(alternatives: Alternatives) -> str:
    return " or ".join(sorted(alternatives, key=lambda word: (word == "null", word)))


def _cell(alternatives: Alternatives) -> str:
    return _render(alternatives).replace("|", "\\|")


def _count(found: list[Row]) -> str:
    return f"{sum(row.ours is not None for row in found)} of {len(found)}"


def _route_lines(comparison: list[Comparison]) -> Iterator[str]:
    yield "| SDK call | Route | Served | Fields served |"
    yield "|---|---|---|---|"
    for vendor, ours, found in comparison:
        call, route = f"beta.{vendor.call}", f"{vendor.method} {vendor.route}"
        yield f"| `{call}` | `{route}` | {'yes' if ours else '**no**'} | {_count(found)} |"


def _field_lines(found: list[Row]) -> Iterator[str]:
    yield "| In | Field | Vendor's type | Our type | Served |"
    yield "|---|---|---|---|---|"
    for row in found:
        if row.name.removeprefix("data[].").count(".") > 1 and row.ours is not None:
            continue
        ours, served = ("", "**no**") if row.ours is None else (_cell(row.ours), "yes")
        yield f"| {row.place} | `{row.name}` | {_cell(row.vendor)} | {ours} | {served} |"


def render(document: Mapping[str, Any]) -> str:
    """The Markdown page for an OpenAPI document."""
    comparison = compare(document)
    every_row = [row for _, _, found in comparison for row in found]
    routes_served = sum(ours is not None for _, ours, _ in comparison)
    lines = [
        "# API coverage",
        "",
        "<!-- Generated by `python -m scripts.check_generated --write`; edits are overwritten. -->",
        "",
        f"The memory API of the official Python SDK (`anthropic` {anthropic.__version__}), and the agents,",
        "environments and sessions around it, beside what this service serves. The vendor's side is",
        "recorded from the SDK itself, ours is read from our OpenAPI document. Path parameters are part of",
        "the route. A field inside another is written with a dot, a field of a list's items with `[]`.",
        "Fields deeper than that are counted, but listed only where they are not served.",
        "",
        f"**{routes_served} of {len(comparison)} routes and {_count(every_row)} fields are served.**",
        "",
        "## Routes",
        "",
        *_route_lines(comparison),
        "",
        "## Fields",
    ]
    for vendor, _, found in comparison:
        lines += ["", f"### `{vendor.method} {vendor.route}`", "", *_field_lines(found)]
    called = {_key(vendor) for vendor, _, _ in comparison}
    beyond = [operation for operation in served_operations(document) if _key(operation) not in called]
    lines += ["", "## Served beyond the SDK's calls", ""]
    lines += [f"- `{operation.method} {operation.route}`" for operation in beyond] or ["None."]
    return "\n".join(lines) + "\n"
