"""A mount daemon's worker reduced to the take-over, run under the supervisor by test_supervisor.py.

`python -m tests.mount.worker PATH MODE`: serves PATH with a file system in memory whose state is in custody. In mode
`die-reading` the first worker kills itself with a READ of `fatal.md` in hand.
"""

import json
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

from app.mount.daemon.supervisor import Custody
from app.mount.fuse.kernel import mounting, protocol
from app.mount.fuse.kernel.device import Session
from app.mount.fuse.kernel.negotiation import Negotiated
from app.mount.fuse.kernel.protocol import Opcode
from app.mount.fuse.kernel.requests import Reply, Request
from tests.mount.tiny import TinyFilesystem

FILES = {"fatal.md": b"worth waiting for\n", "other.md": b"another\n", "pid.md": b""}


class Keeping(TinyFilesystem):
    """Writes down every WRITE before it is answered, and what was negotiated."""

    def __init__(self, custody: Custody) -> None:
        super().__init__({**FILES, "pid.md": b"%d\n" % os.getpid()}, cache_seconds=0)
        self.open_flags = 0  # each open reads anew: a read tells which worker answers
        self.custody = custody
        lines = (custody.state("journal") or b"").splitlines()
        for line in lines:
            name, text = json.loads(line)
            self.files[self.nodeid(name)].data = text.encode()
        if not lines:
            custody.save("journal", b"")
        self.before[Opcode.WRITE] = self.journal

    def opened(self, negotiated: Negotiated) -> None:
        self.custody.save("negotiated", negotiated.to_json())

    def journal(self, request: Request) -> Reply | None:
        file = self.files[request.nodeid]
        file.data += request.body[protocol.WRITE_IN.size :]
        self.custody.append("journal", json.dumps([file.name.decode(), file.data.decode()]).encode() + b"\n")
        return protocol.write_out(len(request.body) - protocol.WRITE_IN.size)


def main(path: str, mode: str) -> int:
    custody = Custody.from_environment()
    filesystem = Keeping(custody)
    fd = custody.kept().get("mount")
    negotiated = None
    if fd is None:
        fd = mounting.open_device()
    else:
        text = custody.state("negotiated")
        negotiated = Negotiated.from_json(text) if text else None

    def die(request: Request) -> Reply | None:
        if request.nodeid == filesystem.nodeid("fatal.md"):
            os.kill(os.getpid(), signal.SIGKILL)
        return None

    if mode == "die-reading" and custody.lives == 0:
        filesystem.before[Opcode.READ] = die
    with ThreadPoolExecutor(2) as pool:
        taken_over = "mount" in custody.kept()
        if not taken_over:
            custody.keep("mount", fd)
            mounting.mount(fd, path, mounting.Options("test"))
        session = Session(fd, filesystem, pool=pool, taken_over=taken_over, negotiated=negotiated)
        session.start()
        session.join()
    custody.release("mount")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
