"""Query parameters: unknown ones are refused by name, `beta` is ignored, none may come twice (part 0.1)."""

import httpx2
import pytest
from anthropic.resources.beta.memory_stores import MemoryStores

from tests.contract.routes import LISTS, ROUTES, Route, Sample, name_of
from tests.contract.shapes import check_refusal


@pytest.mark.parametrize("route", ROUTES, ids=name_of)
def test_an_unknown_query_parameter_is_refused_by_name_and_nothing_happens(
    http: httpx2.Client, stores: MemoryStores, sample: Sample, route: Route
) -> None:
    before = (stores.retrieve(sample.store), stores.memory_versions.list(sample.store).data)
    error = check_refusal(route.call(http, sample, params={"colour": "red"}), 400)
    assert error["message"] == "unexpected query parameter: colour"
    assert (stores.retrieve(sample.store), stores.memory_versions.list(sample.store).data) == before
    assert [item.path for item in stores.memories.list(sample.store)] == ["/notes/today.md"]


@pytest.mark.parametrize("route", ROUTES, ids=name_of)
def test_the_beta_parameter_of_older_sdks_is_ignored(http: httpx2.Client, sample: Sample, route: Route) -> None:
    assert route.call(http, sample, params={"beta": "true"}).status_code == 200


@pytest.mark.parametrize("route", LISTS, ids=name_of)
@pytest.mark.parametrize("parameter", ["limit[]", "limit[gte]", "page[]", "Limit", "limit ", "", "[]", "\0"])
def test_a_bracketed_or_misspelt_parameter_is_an_unknown_one(
    http: httpx2.Client, sample: Sample, route: Route, parameter: str
) -> None:
    error = check_refusal(route.call(http, sample, params={parameter: "1"}), 400)
    assert error["message"].startswith("unexpected query parameter: ")


@pytest.mark.parametrize("route", LISTS, ids=name_of)
@pytest.mark.parametrize("values", [("1", "1"), ("1", "2")], ids=["same", "different"])
def test_a_parameter_given_twice_is_refused(
    http: httpx2.Client, sample: Sample, route: Route, values: tuple[str, str]
) -> None:
    error = check_refusal(route.call(http, sample, params={"limit": list(values)}), 400)
    assert "limit" in error["message"]


def test_a_digest_given_twice_deletes_nothing(http: httpx2.Client, stores: MemoryStores, sample: Sample) -> None:
    url = f"/v1/memory_stores/{sample.store}/memories/{sample.memory}"
    digest = stores.memories.retrieve(sample.memory, memory_store_id=sample.store).content_sha256
    response = http.delete(f"{url}?expected_content_sha256={digest}&expected_content_sha256={digest}")
    check_refusal(response, 400)
    assert stores.memories.retrieve(sample.memory, memory_store_id=sample.store).content == "second"


@pytest.mark.parametrize("name", ["retrieve-memory", "update-memory", "delete-memory", "retrieve-store"])
def test_ordering_parameters_are_unknown_where_nothing_is_listed(
    http: httpx2.Client, sample: Sample, name: str
) -> None:
    (route,) = (route for route in ROUTES if route.name == name)
    error = check_refusal(route.call(http, sample, params={"order_by": "path"}), 400)
    assert error["message"] == "unexpected query parameter: order_by"


@pytest.mark.parametrize("name", ["retrieve-store", "delete-store", "archive-store", "redact-version"])
def test_view_is_unknown_where_there_is_nothing_to_view(http: httpx2.Client, sample: Sample, name: str) -> None:
    (route,) = (route for route in ROUTES if route.name == name)
    error = check_refusal(route.call(http, sample, params={"view": "full"}), 400)
    assert error["message"] == "unexpected query parameter: view"


def test_query_values_may_be_percent_encoded(http: httpx2.Client, sample: Sample) -> None:
    url = f"/v1/memory_stores/{sample.store}/memories"
    for query in ("path_prefix=/notes/", "path_prefix=%2Fnotes%2F", "path%5Fprefix=%2Fnotes/"):
        assert [item["path"] for item in http.get(f"{url}?{query}").json()["data"]] == ["/notes/today.md"]


def test_a_plus_in_a_query_is_a_space(http: httpx2.Client, stores: MemoryStores, sample: Sample) -> None:
    stores.memories.create(sample.store, path="/a b/c", content="x")
    url = f"/v1/memory_stores/{sample.store}/memories"
    assert [item["path"] for item in http.get(f"{url}?path_prefix=/a+b/").json()["data"]] == ["/a b/c"]
