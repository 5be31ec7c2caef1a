"""`anthropic-beta` and `anthropic-version`: lenient, or in strict mode the vendor's refusals (part 0.2)."""

from collections.abc import Iterator

import anthropic
import httpx2
import pytest
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from tests.contract.conftest import bare_http
from tests.contract.routes import ROUTES, Route, Sample, name_of
from tests.contract.shapes import check_refusal, refused
from tests.support.backends import Backend
from tests.support.servers import Server, serve

pytestmark = pytest.mark.any_backend

STORES = "/v1/memory_stores"
NEW = "agent-memory-2026-07-22"
OLD = "managed-agents-2026-04-01"
VERSIONS = ["2023-06-01", "2026-10-21"]


@pytest.fixture(scope="module")
def strict(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    environment = backend.environment(tmp_path_factory.mktemp("strict"))
    with serve(environment, settings={"MEMSTORE_STRICT_BETA": "true"}) as server:
        yield server


@pytest.fixture
def strict_http(strict: Server) -> Iterator[httpx2.Client]:
    """A client of the strict server that sends no `anthropic-beta` of its own."""
    with strict.http() as http:
        yield http


@pytest.mark.parametrize(
    "header",
    [None, "", NEW, OLD, f"{NEW},{OLD}", f"{OLD}, {NEW}", "something-else-2020-01-01"],
)
def test_by_default_any_beta_header_and_none_is_accepted(http: httpx2.Client, header: str | None) -> None:
    headers = {} if header is None else {"anthropic-beta": header}
    assert http.get(STORES, headers=headers).status_code == 200


def test_by_default_the_sdk_may_name_both_betas(client: anthropic.Anthropic, store: Store) -> None:
    assert client.beta.memory_stores.retrieve(store.id, betas=[OLD]) == store


@pytest.mark.parametrize("version", [None, *VERSIONS])
def test_by_default_the_version_header_may_be_missing(server: Server, version: str | None) -> None:
    headers = {} if version is None else {"anthropic_version": version}
    with bare_http(server, x_api_key=server.api_key, **headers) as http:
        assert http.get(STORES).status_code == 200


@pytest.mark.parametrize("header", [NEW, OLD, f"{NEW},{NEW}"])
def test_strict_mode_takes_either_beta_alone(strict_http: httpx2.Client, header: str) -> None:
    assert strict_http.get(STORES, headers={"anthropic-beta": header}).status_code == 200


@pytest.mark.parametrize("route", ROUTES, ids=name_of)
def test_strict_mode_hides_every_route_without_a_beta_header(strict_http: httpx2.Client, route: Route) -> None:
    check_refusal(route.call(strict_http, Sample("memstore_x", "mem_x", "memver_x")), 404)


@pytest.mark.parametrize("header", [f"{NEW},{OLD}", f"{OLD}, {NEW}"])
def test_strict_mode_refuses_both_betas_together(strict_http: httpx2.Client, header: str) -> None:
    check_refusal(strict_http.get(STORES, headers={"anthropic-beta": header}), 400)


def test_strict_mode_refuses_both_betas_in_two_header_lines(strict_http: httpx2.Client) -> None:
    response = strict_http.get(STORES, headers=[("anthropic-beta", NEW), ("anthropic-beta", OLD)])
    check_refusal(response, 400)


@pytest.mark.parametrize("header", ["something-else-2020-01-01", f"{NEW},something-else-2020-01-01"])
def test_strict_mode_refuses_an_unknown_beta_by_name(strict_http: httpx2.Client, header: str) -> None:
    error = check_refusal(strict_http.get(STORES, headers={"anthropic-beta": header}), 400)
    assert "`something-else-2020-01-01`" in error["message"]
    assert "`anthropic-beta`" in error["message"]


def test_strict_mode_serves_the_sdk_as_it_comes(strict: Server) -> None:
    with strict.client(max_retries=0) as client:
        store = client.beta.memory_stores.create(name="strict")
        memory = client.beta.memory_stores.memories.create(store.id, path="/a", content="x")
        assert client.beta.memory_stores.memories.retrieve(memory.id, memory_store_id=store.id).content == "x"
        client.beta.memory_stores.delete(store.id)


def test_strict_mode_refuses_the_sdk_that_names_the_old_beta_too(strict: Server) -> None:
    with strict.client(max_retries=0) as client, refused(400):
        client.beta.memory_stores.list(betas=[OLD])


@pytest.mark.parametrize("version", VERSIONS)
def test_strict_mode_takes_both_versions(strict: Server, version: str) -> None:
    with bare_http(strict, x_api_key=strict.api_key, anthropic_beta=NEW, anthropic_version=version) as http:
        assert http.get(STORES).status_code == 200


def test_strict_mode_asks_for_the_version_header(strict: Server) -> None:
    with bare_http(strict, x_api_key=strict.api_key, anthropic_beta=NEW) as http:
        error = check_refusal(http.get(STORES), 400)
    assert "anthropic-version" in error["message"]


def test_strict_mode_checks_the_key_first(strict: Server) -> None:
    with bare_http(strict, x_api_key="sk-wrong") as http:
        check_refusal(http.get(STORES), 401)


@pytest.mark.parametrize("beta", ["files-api-2025-04-14", "skills-2025-10-02", "context-1m-2025-08-07"])
def test_strict_mode_serves_an_sdk_that_names_another_beta_too(strict: Server, beta: str) -> None:
    with strict.client(max_retries=0) as client:
        for list_some in (client.beta.agents.list, client.beta.environments.list, client.beta.memory_stores.list):
            assert list_some(betas=[beta]).data == []
        with refused(400):
            client.beta.agents.list(betas=["files-api-2025-04-15"])
