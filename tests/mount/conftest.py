"""What the tests of the mount share: real mounts, and the reason where there can be none."""

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.mount.fuse_mounts import Mounts, missing_for_fuse
from tests.support.waiting import WAIT_SECONDS


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
