"""The pages beside the API: alive, ready, metrics, documents (the issue, section 2), all without a key."""

import re

import httpx2
import pytest

from tests.contract.routes import ROUTES, Route, Sample, name_of

pytestmark = pytest.mark.any_backend

ANY_ID = Sample("{}", "{}", "{}")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"])
def test_the_service_pages_answer_without_a_key(anonymous: httpx2.Client, path: str) -> None:
    assert anonymous.get(path).status_code == 200


def test_the_metrics_are_in_the_format_of_prometheus(anonymous: httpx2.Client) -> None:
    response = anonymous.get("/metrics")
    assert response.headers["content-type"].startswith(("text/plain", "application/openmetrics-text"))
    assert "# TYPE " in response.text
    assert "# HELP " in response.text


def test_the_documents_are_a_page_and_an_openapi_file(anonymous: httpx2.Client) -> None:
    assert anonymous.get("/docs").headers["content-type"].startswith("text/html")
    assert anonymous.get("/openapi.json").json()["openapi"].startswith("3.")


def test_a_person_who_opens_the_address_finds_a_page_with_links_that_work(anonymous: httpx2.Client) -> None:
    home = anonymous.get("/", headers={"accept": "text/html"})
    assert home.status_code == 200
    assert home.headers["content-type"].startswith("text/html")
    links = re.findall(r'href="([^"]+)"', home.text)
    assert len(links) == 4
    for link in links:
        assert link.startswith("data:") or anonymous.get(f"/{link}").status_code == 200
    assert "Disallow: /" in anonymous.get("/robots.txt").text


def test_a_page_may_load_and_send_nothing_elsewhere_nor_be_framed(anonymous: httpx2.Client) -> None:
    for path in ("/", "/docs"):
        headers = anonymous.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    assert "content-security-policy" not in anonymous.get("/openapi.json").headers


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/v1/v1/memory_stores", "the base URL must not end in /v1"),
        ("/v1/messages", "Memstore has the API of memory stores and sessions, not this one"),
        ("/v1/memory_store", "there is nothing at '/v1/memory_store'"),
    ],
)
def test_a_wrong_path_is_told_what_was_probably_meant(http: httpx2.Client, path: str, hint: str) -> None:
    refused = http.post(path, json={})
    assert refused.status_code == 404
    assert refused.json()["error"]["message"].endswith(hint)


def test_the_reference_explains_each_group_of_routes_and_begins_with_the_stores(anonymous: httpx2.Client) -> None:
    document = anonymous.get("/openapi.json").json()
    named = [tag["name"] for tag in document["tags"]]
    used = {
        tag
        for operations in document["paths"].values()
        for operation in operations.values()
        for tag in operation["tags"]
    }
    assert used == set(named)
    assert all(tag["description"] for tag in document["tags"])
    assert named[0] == "memory stores"
    assert next(iter(document["paths"])) == "/v1/memory_stores"


@pytest.mark.parametrize("route", ROUTES, ids=name_of)
def test_the_openapi_file_knows_every_route_and_its_refusals(anonymous: httpx2.Client, route: Route) -> None:
    documented = anonymous.get("/openapi.json").json()["paths"]
    paths = {re.sub(r"{\w+}", "{}", path): operations for path, operations in documented.items()}
    operation = paths[route.url(ANY_ID)][route.method.lower()]
    expected = {"200", "400", "401", "403"} | ({"404"} if route.takes_id else set())
    assert expected <= set(operation["responses"])
    if route.body is not None:
        assert operation["requestBody"]["required"]
