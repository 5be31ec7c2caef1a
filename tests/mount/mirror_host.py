"""A process that shows one store in a mirror until it is killed: `mirror_host.py URL KEY STORE HOME NAME`."""

import signal
import sys
from pathlib import Path

from app.mount.door.api import StoreApi
from app.mount.mirror.frontend import MirrorFrontEnd
from app.mount.sync.content_cache import ContentCache
from app.mount.sync.engine import StoreEngine


def main(base_url: str, key: str, store_id: str, home: str, name: str) -> None:
    directory = Path(home)
    engine = StoreEngine(
        StoreApi(base_url, store_id, lambda: key),
        directory=directory / f"engine-{name}",
        content_cache=ContentCache(directory / "cache"),
        read_only=False,
        label="host",
    )
    front = MirrorFrontEnd(engine, directory / name, state_dir=directory / f"state-{name}", read_only=False)
    engine.start()
    front.start()
    sys.stdout.write("live\n")
    sys.stdout.flush()
    signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
