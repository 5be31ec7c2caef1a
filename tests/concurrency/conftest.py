"""Fleets: server processes that share a database, of which every test here has more than one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.storage.rows import migrations
from tests.concurrency.fleet import Fleet, start_fleet
from tests.concurrency.limits import ERASING, FLEET_LIMITS
from tests.storage.parts import options
from tests.support.backends import Backend

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of one back end to one worker of xdist, so that each fleet is started once."""
    for item in items:
        if isinstance(item, pytest.Function) and item.path.is_relative_to(HERE) and hasattr(item, "callspec"):
            item.add_marker(pytest.mark.xdist_group(f"concurrency-{item.callspec.params['backend']}"))


@pytest.fixture(scope="session")
def fleet(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two servers, one of them with two workers: three processes. Their limits are small enough to be reached."""
    environment = backend.environment(tmp_path_factory.mktemp("fleet"))
    with start_fleet(environment, 2, 1, **FLEET_LIMITS) as fleet:
        yield fleet


@pytest.fixture(scope="session")
def erasing_fleet(backend: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two servers that let go of everything at once: only heads are kept, nothing is cached."""
    environment = backend.environment(tmp_path_factory.mktemp("erasing"))
    with start_fleet(environment, 1, 1, **ERASING) as fleet:
        yield fleet


@pytest.fixture
def environment(backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An empty, migrated service for the test itself to open; the AWS variables are this process's too."""
    environment = backend.environment(tmp_path)
    migrations.upgrade(options(environment).database_url)
    for name, value in environment.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    return environment
