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


@pytest.mark.parametrize("path", ["/readyz", "/metrics"])
def test_who_hammers_a_page_that_needs_no_key_costs_the_database_nothing(anonymous: httpx2.Client, path: str) -> None:
    def asked() -> float:
        text = anonymous.get("/metrics").text
        found = re.search(r'^memstore_database_seconds_count\{operation="read"\} (\S+)$', text, re.MULTILINE)
        return 0.0 if found is None else float(found[1])

    before = asked()
    for _ in range(300):
        assert anonymous.get(path).status_code == 200
    assert asked() - before < 200


def test_the_documents_are_a_page_and_an_openapi_file(anonymous: httpx2.Client) -> None:
    assert anonymous.get("/docs").headers["content-type"].startswith("text/html")
    assert anonymous.get("/openapi.json").json()["openapi"].startswith("3.")


@pytest.mark.parametrize("route", ROUTES, ids=name_of)
def test_the_openapi_file_knows_every_route_and_its_refusals(anonymous: httpx2.Client, route: Route) -> None:
    documented = anonymous.get("/openapi.json").json()["paths"]
    paths = {re.sub(r"{\w+}", "{}", path): operations for path, operations in documented.items()}
    operation = paths[route.url(ANY_ID)][route.method.lower()]
    expected = {"200", "400", "401", "403"} | ({"404"} if route.takes_id else set())
    assert expected <= set(operation["responses"])
    if route.body is not None:
        assert operation["requestBody"]["required"]
