"""`python -m tests.mount.runner STORES COMMAND…`: a command in a private namespace with small stores.

STORES is JSON: `[[directory, read_only, {name: text}], …]`. After the command, each store's files follow on standard
error as one JSON object by directory.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

from app.mount.daemon import namespaces
from app.mount.daemon.namespaces import Store
from app.mount.fuse.kernel.device import Session
from app.mount.sync.errors import MountError
from tests.mount.tiny import TinyFilesystem


def main(text: str, *command: str) -> int:
    stores, filesystems = [], {}
    for directory, read_only, files in json.loads(text):
        stores.append(Store(directory, read_only=read_only))
        filesystems[directory] = TinyFilesystem({name: content.encode() for name, content in files.items()})

    with ThreadPoolExecutor(2) as pool:

        def serve(descriptors: dict[str, int]) -> None:
            for directory, fd in descriptors.items():
                session = Session(fd, filesystems[directory], pool=pool)
                session.start()
                if not session.live.wait(30):
                    raise MountError(f"{directory} does not answer")

        try:
            status = namespaces.run(command, stores, serve)
        except MountError as error:
            sys.stderr.write(f"{error}\n")
            return 99
    left = {
        directory: {file.name.decode(): file.data.decode() for file in filesystem.files.values()}
        for directory, filesystem in filesystems.items()
    }
    sys.stderr.write(f"{json.dumps(left)}\n")
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
