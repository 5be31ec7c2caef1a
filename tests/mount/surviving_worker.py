"""A worker that serves one mount and may be killed: a successor with the same arguments goes on.

Arguments: the descriptor of /dev/fuse, the directory for state, the server's URL, the store's ID and the API key. It
waits for a line, `new` or `take-over`, and prints one when it answers. Then it prints its status for every line.
"""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app.mount.door.api import StoreApi
from app.mount.fuse.filesystem.filesystem import FileSystem
from app.mount.fuse.kernel.device import Session
from app.mount.fuse.kernel.negotiation import Negotiated
from app.mount.sync.content_cache import ContentCache
from app.mount.sync.engine import StoreEngine


class FileKeeper:
    """Keeps what a successor needs in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1

    def save(self, state: bytes) -> None:
        """See survival.Keeper."""
        new = self._path.with_suffix(".new")
        new.write_bytes(state)
        new.rename(self._path)
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND)

    def append(self, piece: bytes) -> None:
        """See survival.Keeper."""
        os.write(self._file, piece)


def main(device: str, directory: str, url: str, store_id: str, key: str) -> None:
    """Serve until the mount is gone."""
    taken_over = sys.stdin.readline() == "take-over\n"
    state, negotiated = Path(directory, "nodes"), Path(directory, "negotiated")
    engine = StoreEngine(
        StoreApi(url, store_id, lambda: key),
        directory=Path(directory, "engine"),
        content_cache=ContentCache(Path(directory, "cache")),
        read_only=False,
        label="test",
    )
    filesystem = FileSystem(engine, read_only=False)
    engine.start()
    with ThreadPoolExecutor(8) as pool:
        session = Session(
            int(device),
            filesystem,
            pool=pool,
            wishes=filesystem.wishes,
            taken_over=taken_over,
            negotiated=Negotiated.from_json(negotiated.read_bytes()) if taken_over else None,
        )
        if taken_over:
            filesystem.restore(state.read_bytes())
        filesystem.start(session, FileKeeper(state))
        session.live.wait()
        assert session.negotiated is not None
        negotiated.write_bytes(session.negotiated.to_json())
        sys.stdout.write("live\n")
        sys.stdout.flush()
        for _ in sys.stdin:  # a line asks for the status
            sys.stdout.write(json.dumps([engine.status(), filesystem.status()]) + "\n")
            sys.stdout.flush()
        session.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
