"""The OpenAPI document by itself: complete, true to the code's limits and errors, and always the same."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from app.contract import errors, limits, paths
from app.contract.ids import BOOTSTRAP_API_KEY_ID
from app.server.application import create_app

Schema = dict[str, Any]

DOCUMENT = create_app().openapi()
SCHEMAS: dict[str, Schema] = DOCUMENT["components"]["schemas"]
OPERATIONS: dict[str, Schema] = {
    f"{method.upper()} {path}": operation
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
}
API = {name: operation for name, operation in OPERATIONS.items() if " /v1/" in name}
ALWAYS = {"200", "400", "401", "403", "404", "429", "500", "503", "529", "default"}

LISTINGS = {
    name: operation
    for name, operation in API.items()
    if name.startswith("GET ") and "limit" in {each["name"] for each in operation["parameters"]}
}
LIMITS = {
    "changes": (limits.CHANGES_LIMIT_DEFAULT, limits.CHANGES_LIMIT_MAX),
    "resources": (None, limits.RESOURCES_PAGE_LIMIT_MAX),
}
"""Default (None: everything) and maximum of the listings that have their own, by the end of the path."""

each_operation = pytest.mark.parametrize("operation", API.values(), ids=API.keys())


def inner_schemas(value: Any) -> Iterator[Schema]:
    """Every object of a part of the document."""
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from inner_schemas(child)


def schemas_behind(part: Any) -> set[str]:
    """The names of the schemas that a part of the document leads to, directly or through others."""
    found: set[str] = set()
    waiting = [part]
    while waiting:
        names = {inner["$ref"].rpartition("/")[2] for inner in inner_schemas(waiting.pop()) if "$ref" in inner}
        waiting += [SCHEMAS[name] for name in names - found]
        found |= names
    return found


REQUESTS = schemas_behind([operation.get("requestBody") for operation in API.values()])
ANSWERS = schemas_behind([operation["responses"] for operation in OPERATIONS.values()])
COMING_AND_GOING = {
    "ErrorDetail": {"conflicting_memory_id", "conflicting_path", "details", "erased"},
    "MemoryChange": {"erased"},
}
"""The keys of answers that are not always there."""


def is_valid(value: Any, schema: Schema) -> bool:
    whole = {**schema, "components": DOCUMENT["components"]}
    return jsonschema_rs.Draft202012Validator(whole, validate_formats=True).is_valid(value)


def every_error(kind: type[errors.MemstoreError] = errors.MemstoreError) -> Iterator[type[errors.MemstoreError]]:
    for child in kind.__subclasses__():
        yield child
        yield from every_error(child)


def test_the_document_is_the_same_in_every_process() -> None:
    command = "import json; from app.server.application import create_app; print(json.dumps(create_app().openapi()))"
    printed = {
        subprocess.run(
            [sys.executable, "-c", command],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            timeout=60,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert printed == {json.dumps(DOCUMENT).encode() + b"\n"}


def test_the_operators_routes_are_there_beside_the_api() -> None:
    assert OPERATIONS.keys() - API.keys() == {"GET /healthz", "GET /readyz", "GET /metrics"}
    assert OPERATIONS["GET /readyz"]["responses"].keys() == {"200", "503"}
    assert "text/plain" in OPERATIONS["GET /metrics"]["responses"]["200"]["content"]


def test_no_422_is_promised_since_none_is_given() -> None:
    assert "422" not in json.dumps([list(operation["responses"]) for operation in OPERATIONS.values()])
    assert "HTTPValidationError" not in SCHEMAS


@each_operation
def test_a_route_names_each_refusal_that_it_may_answer(operation: Schema) -> None:
    own = operation["responses"].keys() - ALWAYS - {"304"}
    assert operation["responses"].keys() >= ALWAYS
    assert own == ({"413"} if "requestBody" in operation else set()) | ({"409"} if "409" in own else set())


def test_who_has_the_content_already_may_be_told_so_wherever_there_is_an_entity_tag() -> None:
    tagged = {name for name, operation in API.items() if "etag" in operation["responses"]["200"]["headers"]}
    assert {name for name, operation in API.items() if "304" in operation["responses"]} == tagged
    assert tagged


def test_a_conflict_is_with_a_path_a_content_a_name_a_version_or_a_use() -> None:
    store = "/v1/memory_stores/{memory_store_id}"
    assert {name for name, operation in API.items() if "409" in operation["responses"]} == {
        f"POST {store}/memories",
        f"POST {store}/memories/{{memory_id}}",
        f"DELETE {store}/memories/{{memory_id}}",
        f"POST {store}/moves",
        "POST /v1/erasures",
        f"POST {store}/memory_versions/{{memory_version_id}}/restore",
        f"POST {store}/rollback",
        "POST /v1/environments",
        "POST /v1/environments/{environment_id}",
        "DELETE /v1/environments/{environment_id}",
        "POST /v1/agents/{agent_id}",
    }


@each_operation
def test_a_refusal_has_the_envelope_and_a_head_has_no_body(operation: Schema) -> None:
    is_head = operation is API["HEAD /v1/memory_stores/{memory_store_id}/memories/{memory_id}"]
    for status, answer in operation["responses"].items():
        if is_head:
            assert "content" not in answer
        elif status == "304":
            assert "content" not in answer
            assert {"etag", "request-id"} <= set(answer["headers"])
        elif status != "200":
            schema = answer["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ErrorEnvelope"}


def test_the_types_of_errors_are_those_of_the_exception_tree() -> None:
    raised = {kind.type for kind in every_error()} | {errors.MemstoreError.type}
    assert set(SCHEMAS["ErrorDetail"]["properties"]["type"]["enum"]) == raised


def test_every_status_of_the_exception_tree_is_on_some_route() -> None:
    answered = {status for operation in API.values() for status in operation["responses"]}
    statuses = {str(kind.status) for kind in every_error()}
    # No method that is there can answer the one, and no route is reached with the others; "default" names them.
    elsewhere = {"405", "408", "431"}
    assert statuses - answered == elsewhere
    described = next(iter(API.values()))["responses"]["default"]["description"]
    assert all(status in described for status in elsewhere)
    assert answered - statuses == {"200", "304", "default"}


@each_operation
def test_every_answer_has_its_headers(operation: Schema) -> None:
    for status, answer in operation["responses"].items():
        assert answer["headers"]["request-id"]["required"]
        assert ("anthropic-workspace-id" in answer["headers"]) == (status != "401")
        assert ("retry-after" in answer["headers"]) == (status in ("429", "503", "529"))
        assert ("x-should-retry" in answer["headers"]) == (status == "409")
        assert ("allow" in answer["headers"]) == (status == "default")
    assert ("etag" in operation["responses"]["200"]["headers"]) == (
        operation["operationId"].startswith(("retrieve_memory_v1", "head_memory"))
    )


@each_operation
def test_the_vendors_headers_are_optional_parameters(operation: Schema) -> None:
    sent = {each["name"]: each for each in operation["parameters"] if each["in"] == "header"}
    operation_id = operation["operationId"]
    own = {"last-event-id"} if operation_id.startswith("list_changes") else set()
    if operation_id.startswith(("create_memory_v1", "delete_memory_v1")):
        own = {"x-stainless-retry-count"}
    assert sent.keys() - own == {"anthropic-version", "anthropic-beta", "anthropic-workspace-id"}
    assert not any(each["required"] for each in sent.values())


@each_operation
def test_either_way_to_send_the_key_is_enough(operation: Schema) -> None:
    assert operation["security"] == [{"x-api-key": []}, {"bearer": []}]


def test_the_two_ways_to_send_the_key_are_described() -> None:
    schemes = DOCUMENT["components"]["securitySchemes"]
    assert {name: (each["type"], each.get("name"), each.get("scheme")) for name, each in schemes.items()} == {
        "x-api-key": ("apiKey", "x-api-key", None),
        "bearer": ("http", None, "bearer"),
    }
    assert not any("security" in operation for name, operation in OPERATIONS.items() if name not in API)


def test_every_schema_is_used_and_every_reference_leads_somewhere() -> None:
    used = {inner["$ref"].rpartition("/")[2] for inner in inner_schemas(DOCUMENT) if "$ref" in inner}
    assert used == SCHEMAS.keys()


def test_every_parameter_and_every_operation_says_what_it_is_for() -> None:
    for operation in OPERATIONS.values():
        assert operation["description"]
        assert all(each["description"] for each in operation.get("parameters", []))


def test_no_parameter_of_a_url_or_header_is_said_to_be_null() -> None:
    for operation in API.values():
        for parameter in operation["parameters"]:
            assert "null" not in json.dumps(parameter["schema"])


def test_what_is_sent_and_what_is_answered_have_schemas_of_their_own() -> None:
    assert SCHEMAS.keys() == REQUESTS | ANSWERS
    assert not REQUESTS & ANSWERS


@pytest.mark.parametrize("name", sorted(REQUESTS))
def test_a_request_is_closed(name: str) -> None:
    closed = SCHEMAS[name].get("additionalProperties") is False
    assert closed is not (name == "InputSchemaParams")  # a JSON Schema of the caller's own


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_an_answer_has_every_key(name: str) -> None:
    schema = SCHEMAS[name]
    if name == "InputSchema":  # a JSON Schema of the caller's own, as it came
        assert schema["additionalProperties"] is True
        return
    optional = schema["properties"].keys() - set(schema["required"])
    assert optional == COMING_AND_GOING.get(name, set())


@pytest.mark.parametrize(
    ("schema", "field", "keyword", "limit"),
    [
        ("CreateStore", "name", "maxLength", limits.NAME_MAX_CHARACTERS),
        ("UpdateStore", "name", "maxLength", limits.NAME_MAX_CHARACTERS),
        ("CreateStore", "description", "maxLength", limits.DESCRIPTION_MAX_CHARACTERS),
        ("UpdateStore", "description", "maxLength", limits.DESCRIPTION_MAX_CHARACTERS),
        ("CreateStore", "metadata", "maxProperties", limits.METADATA_MAX_PAIRS),
        ("CreateMemory", "path", "maxLength", limits.PATH_MAX_BYTES),
        ("UpdateMemory", "path", "maxLength", limits.PATH_MAX_BYTES),
        ("CreateMemory", "content", "maxLength", limits.CONTENT_MAX_BYTES),
        ("UpdateMemory", "content", "maxLength", limits.CONTENT_MAX_BYTES),
        ("Memory", "content_size_bytes", "maximum", limits.CONTENT_MAX_BYTES),
        ("Page_MemoryStore_", "data", "maxItems", limits.PAGE_LIMIT_MAX),
    ],
)
def test_a_limit_is_the_one_of_the_contract(schema: str, field: str, keyword: str, limit: int) -> None:
    described = SCHEMAS[schema]["properties"][field]
    assert [each[keyword] for each in inner_schemas(described) if keyword in each] == [limit]


def test_what_answers_with_a_list_has_a_limit() -> None:
    lists = {
        name
        for name, operation in API.items()
        for schema in schemas_behind(operation["responses"]["200"])
        if name.startswith("GET ") and "data" in SCHEMAS[schema]["properties"]
    }
    assert lists == LISTINGS.keys()


@pytest.mark.parametrize("name", LISTINGS)
def test_a_listing_has_its_limits(name: str) -> None:
    query = {each["name"]: each["schema"] for each in API[name]["parameters"] if each["in"] == "query"}
    limit = query["limit"]
    usual, most = LIMITS.get(name.rpartition("/")[2], (limits.PAGE_LIMIT_DEFAULT, limits.PAGE_LIMIT_MAX))
    assert (limit["minimum"], limit.get("default"), limit["maximum"]) == (1, usual, most)
    if "depth" in query:
        assert (query["depth"]["minimum"], query["depth"]["default"], query["depth"]["maximum"]) == (0, 0, 1)


@pytest.mark.parametrize(
    ("path", "good"),
    [
        ("/a", True),
        ("/a/b.md", True),
        ("/...", True),
        ("/.hidden/..x", True),
        ("/" + "/".join("a" * 20), True),
        ("/" + "/".join("a" * 21), False),
        ("/", False),
        ("a", False),
        ("/a/", False),
        ("//a", False),
        ("/a//b", False),
        ("/.", False),
        ("/a/../b", False),
        ("/a\n", False),
        ("/a\x85", False),
        ("/a\u2028", False),
        ("/" + "a" * 1_024, False),
    ],
)
def test_the_schema_of_a_path_says_what_the_service_says(path: str, good: bool) -> None:
    body = {"path": path, "content": ""}
    try:
        paths.check(path)
    except errors.InvalidRequest:
        assert not good
    else:
        assert good
    assert is_valid(body, SCHEMAS["CreateMemory"]) == good


@pytest.mark.parametrize(
    ("body", "good"),
    [
        ({"content": "x"}, True),
        ({"path": "/x"}, True),
        ({"content": "x", "path": None}, True),
        ({"content": None, "path": "/x"}, True),
        ({"content": "x", "precondition": None}, True),
        ({}, False),
        ({"content": None}, False),
        ({"content": None, "path": None}, False),
        ({"precondition": {"type": "content_sha256", "content_sha256": "0" * 64}}, False),
        ({"content": "x", "precondition": {"content_sha256": "0" * 64}}, False),
        ({"content": "x", "precondition": {"type": "content_sha256", "content_sha256": "0" * 63}}, False),
    ],
)
def test_an_update_of_a_memory_must_give_content_or_path(body: Schema, good: bool) -> None:
    assert is_valid(body, SCHEMAS["UpdateMemory"]) == good


@pytest.mark.parametrize(
    ("metadata", "good"),
    [
        (None, True),
        ({}, True),
        ({"a": "x", "b": None}, True),
        ({"": None, "x" * 65: None, "\0": None}, True),
        ({"": "x"}, False),
        ({"x" * 65: "x"}, False),
        ({"\0": "x"}, False),
        ({"a": "x" * 513}, False),
        ({"a": "\0"}, False),
        ({"a": 1}, False),
    ],
)
def test_a_patch_of_metadata_takes_null_for_any_key(metadata: Any, good: bool) -> None:
    assert is_valid({"metadata": metadata}, SCHEMAS["UpdateStore"]) == good


def test_every_example_fits_its_schema() -> None:
    found = 0
    for schema in inner_schemas(DOCUMENT):
        for example in schema.get("examples", []) if isinstance(schema.get("examples"), list) else []:
            assert is_valid(example, schema), example
            found += 1
    assert found >= 10


def test_the_example_of_a_memory_is_a_real_one() -> None:
    (memory,) = SCHEMAS["Memory"]["examples"]
    data = memory["content"].encode()
    assert memory["content_size_bytes"] == len(data) > 0
    assert memory["content_sha256"] == hashlib.sha256(data).hexdigest()
    assert paths.check(memory["path"])


def test_the_ids_of_answers_have_the_pattern_of_ids() -> None:
    pattern = SCHEMAS["Memory"]["properties"]["id"]["pattern"]
    assert re.search(pattern, BOOTSTRAP_API_KEY_ID.replace("apikey", "mem"))
    assert not re.search(pattern, BOOTSTRAP_API_KEY_ID)
