"""What the tests of the mount share: real mounts, and the reason where there can be none."""

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.mount.fuse_mounts import Mounts, missing_for_fuse
from tests.support.backends import BACKENDS
from tests.support.waiting import WAIT_SECONDS

ON_EVERY_BACKEND = ("test_engine_outages", "test_engine_races", "test_engine_sync", "test_posix")
"""Modules whose promises depend on what a back end does: its feed, its errors, its pace."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A mount sees nothing of the storage: what it promises is tested on one back end, but for those above."""
    needless = {item for item in items if _is_needless(item)}
    config.hook.pytest_deselected(items=list(needless))
    items[:] = [item for item in items if item not in needless]


def _is_needless(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function) or Path(__file__).parent not in item.path.parents:
        return False
    callspec = getattr(item, "callspec", None)
    backend = callspec.params.get("backend", BACKENDS[0]) if callspec else BACKENDS[0]
    return backend != BACKENDS[0] and item.path.stem not in ON_EVERY_BACKEND


@pytest.fixture(scope="session")
def fuse() -> None:
    """Tests that mount something for real ask for it."""
    if reason := missing_for_fuse():
        pytest.skip(f"FUSE: {reason}")


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that found its server also follows it once it is started, however busy the machine is."""
    monkeypatch.setattr("app.mount.sync.engine._FOLLOWING_SECONDS", WAIT_SECONDS)


@pytest.fixture
def mounts(fuse: None) -> Iterator[Mounts]:
    """Mounts that are gone after the test, however it ends; other users can reach them."""
    directory = Path(tempfile.mkdtemp(prefix="memstore-mounts-"))
    directory.chmod(0o755)
    with ThreadPoolExecutor(8, thread_name_prefix="deferred") as pool:
        mounts = Mounts(directory, pool)
        try:
            yield mounts
        finally:
            mounts.close()
            directory.rmdir()
