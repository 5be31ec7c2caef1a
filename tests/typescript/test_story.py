"""The official TypeScript SDK drives one store's whole life."""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.servers import Server

HERE = Path(__file__).parent
INSTALL_SECONDS = 180
STORY_SECONDS = 120

CHAPTERS = [
    "a store is created, changed and found",
    "memories are created and read back",
    "a path is taken once",
    "an update with an outdated precondition is refused, then resolved",
    "a rename keeps the ID",
    "listings page by themselves",
    "every change is in the history",
    "an old version is redacted, the head is not",
    "an archived store can be read and emptied, not written",
    "a deleted store is gone",
]

needs_node = pytest.mark.skipif(
    shutil.which("node") is None or shutil.which("npm") is None,
    reason="node or npm is not installed, so the TypeScript SDK can't be run",
)


@pytest.fixture(scope="session")
def packages(pytestconfig: pytest.Config) -> Path:
    """A `node_modules` with what the lock file names, installed once per lock file."""
    lock = (HERE / "package-lock.json").read_bytes()
    assert pytestconfig.cache is not None
    directory = pytestconfig.cache.mkdir("typescript-sdk") / hashlib.sha256(lock).hexdigest()[:16]
    directory.mkdir(exist_ok=True)
    installed = directory / "installed"
    with (directory / "lock").open("w") as handle:
        # Several test processes may want the packages at once; the first one installs them.
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not installed.exists():
            for name in ("package.json", "package-lock.json"):
                shutil.copy(HERE / name, directory)
            npm = subprocess.run(
                ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
                cwd=directory,
                capture_output=True,
                text=True,
                timeout=INSTALL_SECONDS,
                check=False,
            )
            assert npm.returncode == 0, npm.stdout + npm.stderr
            installed.touch()
    return directory / "node_modules"


@needs_node
def test_the_typescript_sdk_tells_a_stores_whole_life(server: Server, packages: Path, tmp_path: Path) -> None:
    # Node looks for packages beside the script.
    (tmp_path / "node_modules").symlink_to(packages)
    script = shutil.copy(HERE / "story.mjs", tmp_path)
    told = subprocess.run(
        ["node", script, server.base_url],
        env=os.environ | {"ANTHROPIC_API_KEY": server.api_key},
        capture_output=True,
        text=True,
        timeout=STORY_SECONDS,
        check=False,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.splitlines() == CHAPTERS


def test_the_typescript_lock_file_names_no_download_address() -> None:
    lock = json.loads((HERE / "package-lock.json").read_text())
    addressed = [name for name, package in lock["packages"].items() if "resolved" in package]
    assert addressed == []
    unchecked = [name for name, package in lock["packages"].items() if name and "integrity" not in package]
    assert unchecked == []
