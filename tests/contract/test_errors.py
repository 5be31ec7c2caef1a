"""One envelope for every refusal, and a request ID on every answer (parts 4.1 to 4.3)."""

from typing import Any

import anthropic
import httpx2
import pytest
from anthropic.resources.beta.memory_stores import MemoryStores

from tests.contract.conftest import bare_http
from tests.contract.routes import ROUTES, Route, Sample, name_of
from tests.contract.shapes import REQUEST_ID, check_refusal, is_id, refused
from tests.support.servers import Server

STORES = "/v1/memory_stores"

# Path and the methods it answers; the IDs need not exist.
PATHS = {
    STORES: {"GET", "POST"},
    f"{STORES}/x": {"GET", "POST", "DELETE"},
    f"{STORES}/x/archive": {"POST"},
    f"{STORES}/x/memories": {"GET", "POST"},
    f"{STORES}/x/memories/y": {"GET", "HEAD", "POST", "DELETE"},
    f"{STORES}/x/memory_versions": {"GET"},
    f"{STORES}/x/memory_versions/y": {"GET"},
    f"{STORES}/x/memory_versions/y/redact": {"POST"},
}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
REFUSED_METHODS = [(path, method) for path, allowed in PATHS.items() for method in METHODS if method not in allowed]


@pytest.mark.parametrize("route", ROUTES, ids=name_of)
def test_every_success_carries_a_request_id(http: httpx2.Client, sample: Sample, route: Route) -> None:
    response = route.call(http, sample)
    assert response.status_code == 200
    assert is_id(response.headers["request-id"], REQUEST_ID)


def test_the_sdk_reads_the_request_id_of_success_and_refusal(stores: MemoryStores) -> None:
    assert is_id(stores.list()._request_id, REQUEST_ID)
    with pytest.raises(anthropic.NotFoundError) as caught:
        stores.retrieve("memstore_nowhere")
    assert is_id(caught.value.request_id, REQUEST_ID)
    assert caught.value.type == "not_found_error"


def test_request_ids_are_never_used_twice(http: httpx2.Client) -> None:
    ids = [http.get(STORES, params={"limit": limit}).headers["request-id"] for limit in (1, 0, 1, 0)]
    assert len(set(ids)) == 4


def test_a_request_id_is_not_taken_from_the_caller(http: httpx2.Client) -> None:
    forged = "req_01" + "1" * 22
    assert http.get(STORES, headers={"request-id": forged}).headers["request-id"] != forged


@pytest.mark.parametrize(
    "path",
    [
        "/v1/nothing",
        "/v1",
        "/v2/memory_stores",
        "/nothing",
        "/v1/memory_store",
        f"{STORES}/x/memories/y/z",
        f"{STORES}/x/memory",
        f"{STORES}/x/memories/y/redact",
        f"{STORES}/x/memory_versions/y/redact/z",
        f"{STORES}/x/search",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_an_unknown_route_is_404_in_the_envelope(http: httpx2.Client, method: str, path: str) -> None:
    check_refusal(http.request(method, path), 404)


@pytest.mark.parametrize("path", [f"{STORES}/", f"{STORES}/x/memories/", f"{STORES}//memories"])
def test_a_slash_too_many_is_404_and_no_redirect(http: httpx2.Client, path: str) -> None:
    check_refusal(http.get(path), 404)


@pytest.mark.parametrize(("path", "method"), REFUSED_METHODS)
def test_another_method_is_405_in_the_envelope_with_allow(http: httpx2.Client, path: str, method: str) -> None:
    response = http.request(method, path)
    check_refusal(response, 405)
    assert {name.strip() for name in response.headers["allow"].split(",")} >= PATHS[path]
    assert method not in response.headers["allow"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_the_service_pages_refuse_other_methods_the_same_way(http: httpx2.Client, path: str) -> None:
    response = http.post(path)
    check_refusal(response, 405)
    assert "GET" in response.headers["allow"]


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (anthropic.BadRequestError, 400),
        (anthropic.AuthenticationError, 401),
        (anthropic.NotFoundError, 404),
        (anthropic.ConflictError, 409),
    ],
)
def test_the_sdk_raises_its_own_class_for_each_status(
    server: Server, sample: Sample, kind: type[anthropic.APIStatusError], status: int
) -> None:
    key = "sk-wrong" if status == 401 else server.api_key
    path = "no-slash" if status == 400 else "/notes/today.md"
    store_id = "memstore_nowhere" if status == 404 else sample.store
    with server.client(api_key=key, max_retries=0) as client, pytest.raises(kind) as caught:
        client.beta.memory_stores.memories.create(store_id, path=path, content="x")
    assert caught.value.status_code == status
    assert caught.value.api_message


def test_a_refusal_names_the_value_and_what_would_be_accepted(stores: MemoryStores) -> None:
    with refused(400) as refusal:
        stores.create(name="x" * 256)
    assert "256" in refusal.error["message"]
    assert "255" in refusal.error["message"]


def test_a_refusal_never_shows_the_insides(server: Server, http: httpx2.Client) -> None:
    with bare_http(server, x_api_key="sk-secret-to-hide") as stranger:
        refusals = [
            stranger.get(STORES),
            http.get(f"{STORES}/%00"),
            http.get(STORES, params={"page": "page_\0"}),
            http.post(STORES, content=b"\xff"),
        ]
    for refusal in refusals:
        assert 400 <= refusal.status_code < 500
        for word in ("Traceback", "sqlalchemy", "asyncpg", "sqlite3", "pydantic", "sk-secret-to-hide"):
            assert word not in refusal.text


@pytest.mark.parametrize(
    "query",
    [{"memory_id": "\0"}, {"session_id": "\0"}, {"api_key_id": "\ud7ff\0"}, {"service_account_id": "'"}],
    ids=lambda query: next(iter(query)),
)
def test_an_odd_filter_is_never_an_error_of_the_server(
    http: httpx2.Client, sample: Sample, query: dict[str, Any]
) -> None:
    response = http.get(f"{STORES}/{sample.store}/memory_versions", params=query)
    assert response.status_code < 500
    if response.status_code == 200:
        assert response.json()["data"] == []
