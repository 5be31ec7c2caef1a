"""Servers, clients and stores for the tests; failure reports show what the servers printed meanwhile."""

import gc
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, suppress

import anthropic
import httpx2
import hypothesis
import pytest
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from tests.support.backends import BACKENDS, POSTGRES_CEPH, Backend, Services
from tests.support.forks import end_forks
from tests.support.processes import Daemon, end_reaper
from tests.support.s3 import S3Endpoint, missing_for_ceph
from tests.support.servers import Server, serve

# No test judges time: a slow example on a busy machine is no failure. Nor does a run depend on luck: each tries the
# same examples, until somebody asks for others.
hypothesis.settings.register_profile("memstore", deadline=None, derandomize=True)
hypothesis.settings.register_profile("search", deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("MEMSTORE_TEST_EXAMPLES", "memstore"))

pytest_plugins = ["tests.support.failures", "tests.support.hangs", "tests.support.scheduling"]

LOG_SIZES = pytest.StashKey[dict[Daemon, int]]()
CEPH_FIXTURE = "ceph_endpoint"


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what would prove the same again, and tell xdist what belongs together.

    Ceph starts in one worker only, and tests that share a fixture of their module or class share a worker, so
    that such a fixture is set up once. Every other test goes to whichever worker is free.
    """
    if os.environ.get("MEMSTORE_TEST_BACKENDS") != "all":
        needless = {
            item for item in items if item.get_closest_marker("any_backend") and _backend_of(item) != BACKENDS[0]
        }
        config.hook.pytest_deselected(items=list(needless))
        items[:] = [item for item in items if item not in needless]
    for item in items:
        if not isinstance(item, pytest.Function):
            continue
        if CEPH_FIXTURE in item.fixturenames:
            item.add_marker(pytest.mark.xdist_group("ceph"))
        elif _shares_a_fixture(item):
            item.add_marker(pytest.mark.xdist_group(item.module.__name__))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What the collection has made stays to the end; no later search for garbage need go through it again."""
    gc.collect()
    gc.freeze()


def _backend_of(item: pytest.Item) -> object:
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("backend", BACKENDS[0]) if callspec else BACKENDS[0]


def _shares_a_fixture(item: pytest.Function) -> bool:
    definitions = item._fixtureinfo.name2fixturedefs
    used = [definitions[name][-1] for name in item.fixturenames if definitions.get(name)]
    return any(definition.scope in ("module", "class") for definition in used)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Remember how long each server's log is before the test."""
    item.stash[LOG_SIZES] = {daemon: daemon.log.stat().st_size for daemon in Daemon.running}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach to a failure what the running servers printed since the test began."""
    report = yield
    if report.failed:
        sizes = item.stash.get(LOG_SIZES, {})
        for daemon in Daemon.running:
            if printed := daemon.log_tail(since=sizes.get(daemon, 0)):
                report.sections.append((f"log of {daemon.name}", printed))
    return report


def pytest_unconfigure() -> None:
    """The last thing in each process."""
    end_forks()
    end_reaper()


@pytest.fixture(scope="session")
def services() -> Iterator[Services]:
    """PostgreSQL and the S3 servers, each started when a test first needs it."""
    with Services() as services:
        yield services


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request: pytest.FixtureRequest, services: Services) -> Backend:
    """Every test that uses it runs once on SQLite and local disk, and once on PostgreSQL and S3."""
    return Backend(request.param, services)


@pytest.fixture(scope="session")
def server_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Backend], Server]]:
    """The one server of a back end, kept to the end whatever the order of the tests."""
    with ExitStack() as running:
        servers: dict[str, Server] = {}

        def started(backend: Backend) -> Server:
            if backend.name not in servers:
                environment = backend.environment(tmp_path_factory.mktemp(backend.name))
                servers[backend.name] = running.enter_context(serve(environment))
            return servers[backend.name]

        yield started


@pytest.fixture(scope="session")
def server(backend: Backend, server_of: Callable[[Backend], Server]) -> Server:
    """A running server that many tests share: a test that kills or stops one starts its own with `serve`."""
    return server_of(backend)


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[anthropic.Anthropic]:
    """The official SDK, pointed at `server`; it never retries, so that each test sees each answer."""
    with server.client(max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def http(server: Server) -> Iterator[httpx2.Client]:
    """A plain HTTP client for `server`."""
    with server.http() as http:
        yield http


@pytest.fixture
def store(client: anthropic.Anthropic, request: pytest.FixtureRequest) -> Iterator[Store]:
    """A fresh memory store, deleted afterwards."""
    store = client.beta.memory_stores.create(name=request.node.name[:255])
    yield store
    with suppress(anthropic.NotFoundError):  # the test deleted it itself
        client.beta.memory_stores.delete(store.id)


@pytest.fixture(scope="session")
def ceph_endpoint(services: Services) -> S3Endpoint:
    """A real S3 server; tests that need it are skipped where it is not installed."""
    if reason := missing_for_ceph():
        pytest.skip(reason)
    return services.ceph


@pytest.fixture(scope="session")
def ceph_backend(ceph_endpoint: S3Endpoint, services: Services) -> Backend:
    """PostgreSQL and a real S3 server."""
    return Backend(POSTGRES_CEPH, services)


@pytest.fixture(scope="session")
def ceph_server(ceph_backend: Backend, server_of: Callable[[Backend], Server]) -> Server:
    """A running server on PostgreSQL and a real S3 server."""
    return server_of(ceph_backend)
