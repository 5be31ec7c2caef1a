"""A process of its own that opens a store, so that the operating system can tell how much memory that took.

`python -m tests.mount.measured DIRECTORY URL…` looks up a session at each server, opens a store as a mount does, and
writes as JSON for each what became of both, and by how many bytes the process had grown at most until then: the
kernel's VmHWM, above what it was when everything was imported.
"""

import json
import sys
from pathlib import Path

from app.mount.daemon.account import Account, Credentials
from app.mount.daemon.heap import give_back_what_is_freed
from app.mount.door.api import StoreApi
from app.mount.fuse.filesystem.filesystem import FileSystem
from app.mount.sync.content_cache import ContentCache
from app.mount.sync.engine import StoreEngine
from app.mount.sync.errors import MountError
from tests.mount.hostile import STORE
from tests.transfer.measured import peak_bytes


def _session(url: str) -> str:
    try:
        found = Account(Credentials(url, api_key="msk_x", token=None)).session_attachments("sesn_1")
    except MountError as error:
        return str(error)
    return f"{len(found)} stores"


def _store(url: str, directory: Path) -> str:
    engine = StoreEngine(
        StoreApi(url, STORE, lambda: "msk_x", seconds=10),
        directory=directory / "engine",
        content_cache=ContentCache(directory / "cache"),
        read_only=False,
        label="s1",
    )
    FileSystem(engine, read_only=False)
    try:
        engine.start()
    except MountError as error:
        return str(error)
    found = f"{len(engine.view())} memories, {len(engine.status()['unshowable'])} unshowable"
    engine.stop(0)
    return found


if __name__ == "__main__":
    _, directory, *urls = sys.argv
    give_back_what_is_freed()  # as the daemon does
    before = peak_bytes()
    found = []
    for url in urls:
        outcome = {"session": _session(url), "store": _store(url, Path(directory) / url.rpartition(":")[2])}
        found.append({**outcome, "grown": peak_bytes() - before})
    sys.stdout.write(json.dumps(found))
