"""Bodies: unknown and missing keys, malformed JSON, broken Unicode (part 0.1)."""

import json
from typing import Any

import httpx2
import pytest
from anthropic.resources.beta.memory_stores import MemoryStores
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from tests.contract.routes import ROUTES, ROUTES_WITH_BODY, Route, Sample, name_of
from tests.contract.shapes import check_refusal

pytestmark = pytest.mark.any_backend

STORES = "/v1/memory_stores"
JSON = {"content-type": "application/json"}
TAKE_A_BODY = [route for route in ROUTES if route.method == "POST"]

MALFORMED = {
    "nothing": b"",
    "space": b"  ",
    "cut-off": b'{"name": "x"',
    "two-objects": b'{"name": "x"}{"name": "x"}',
    "text-after": b'{"name": "x"} x',
    "single-quotes": b"{'name': 'x'}",
    "trailing-comma": b'{"name": "x",}',
    "comment": b'{"name": "x" /* y */}',
    "bare-word": b"name",
    "not-a-number": b'{"name": NaN}',
    "infinity": b'{"name": Infinity}',
    "raw-newline-in-string": b'{"name": "a\nb"}',
    "form": b"name=x",
    "invalid-utf-8": b'{"name": "\xff"}',
    "cut-off-utf-8": b'{"name": "\xc3"}',
    "utf-8-surrogate": b'{"name": "\xed\xa0\x80"}',
    "overlong-utf-8": b'{"name": "\xc0\xaf"}',
    "utf-16": '{"name": "x"}'.encode("utf-16"),
    "binary": bytes(range(256)),
    "bad-escape": rb'{"name": "\x41"}',
    "deeply-nested": b'{"name":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}
NOT_OBJECTS = [b"null", b"[]", b'["name"]', b'"name"', b"5", b"true"]
LONE_SURROGATES = [
    rb'{"name": "\ud800"}',
    rb'{"name": "x\udfffy"}',
    rb'{"name": "x", "description": "\udc00\ud800"}',
    rb'{"name": "x", "metadata": {"\ud800": "v"}}',
    rb'{"name": "x", "metadata": {"k": "\ud800"}}',
    rb'{"name": "x", "\ud800": 1}',
]


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_json_is_a_clean_400(store: Store, http: httpx2.Client, content: bytes) -> None:
    for url in (STORES, f"{STORES}/{store.id}/memories"):
        check_refusal(http.post(url, content=content, headers=JSON), 400)


@pytest.mark.parametrize("content", NOT_OBJECTS, ids=bytes.decode)
def test_a_body_that_is_no_object_is_a_clean_400(sample: Sample, http: httpx2.Client, content: bytes) -> None:
    for route in ROUTES_WITH_BODY:
        check_refusal(http.post(route.url(sample), content=content, headers=JSON), 400)


@pytest.mark.parametrize("content", LONE_SURROGATES, ids=bytes.decode)
def test_a_lone_surrogate_is_a_clean_400(
    store: Store, stores: MemoryStores, http: httpx2.Client, content: bytes
) -> None:
    check_refusal(http.post(STORES, content=content, headers=JSON), 400)
    check_refusal(http.post(f"{STORES}/{store.id}", content=content, headers=JSON), 400)
    assert stores.retrieve(store.id) == store


@pytest.mark.parametrize("route", TAKE_A_BODY, ids=name_of)
@pytest.mark.parametrize("key", ["colour", "id", "type", "Name", "name "])
def test_unknown_keys_are_refused_by_name(http: httpx2.Client, sample: Sample, route: Route, key: str) -> None:
    body = {**(route.body or {}), key: "x"}
    error = check_refusal(route.call(http, sample, json=body), 400)
    assert error["message"].startswith(f"{key}: Extra inputs are not permitted")


def test_unknown_keys_inside_a_precondition_are_refused(http: httpx2.Client, sample: Sample) -> None:
    precondition = {"type": "content_sha256", "content_sha256": "0" * 64, "colour": "red"}
    response = http.post(
        f"{STORES}/{sample.store}/memories/{sample.memory}",
        json={"content": "x", "precondition": precondition},
    )
    message = check_refusal(response, 400)["message"]
    assert message.startswith("precondition.colour: Extra inputs are not permitted")


@pytest.mark.parametrize(
    ("url", "body", "missing"),
    [
        (STORES, {}, "name"),
        (STORES, {"description": "x"}, "name"),
        (f"{STORES}/{{store}}/memories", {"content": "x"}, "path"),
        (f"{STORES}/{{store}}/memories", {"path": "/x"}, "content"),
    ],
)
def test_missing_keys_are_refused_by_name(
    store: Store, http: httpx2.Client, url: str, body: dict[str, Any], missing: str
) -> None:
    error = check_refusal(http.post(url.format(store=store.id), json=body), 400)
    assert error["message"] == f"{missing}: Field required"


def test_the_body_is_checked_before_the_store_is_looked_up(http: httpx2.Client) -> None:
    unknown = f"{STORES}/memstore_01{'1' * 22}/memories"
    check_refusal(http.post(unknown, content=b"{", headers=JSON), 400)
    check_refusal(http.post(unknown, json={"path": "/a"}), 400)
    check_refusal(http.post(unknown, json={"path": "/a", "content": "x"}), 404)


@pytest.mark.parametrize("name", ["archive-store", "redact-version"])
@pytest.mark.parametrize("content", [b"[]", b"{", b'"x"'], ids=bytes.decode)
def test_actions_without_fields_refuse_anything_but_an_empty_object(
    http: httpx2.Client, sample: Sample, name: str, content: bytes
) -> None:
    (route,) = (route for route in ROUTES if route.name == name)
    check_refusal(http.post(route.url(sample), content=content, headers=JSON), 400)


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8"])
def test_json_may_name_its_charset(http: httpx2.Client, stores: MemoryStores, content_type: str) -> None:
    body = json.dumps({"name": "Café"}, ensure_ascii=False).encode()
    response = http.post(STORES, content=body, headers={"content-type": content_type})
    assert response.status_code == 200
    assert response.json()["name"] == "Café"
    stores.delete(response.json()["id"])
