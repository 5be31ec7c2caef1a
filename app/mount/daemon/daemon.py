"""The mount daemon: one process for all sessions and stores of a user on a host.

    command ──starts──► supervisor ──starts, again and again──► worker: this module
       └───────────────── control socket ──────────────────────────┘

The command that starts it binds the socket and takes the lock; both are inherited by the supervisor and by every
worker, so that a command never finds the door closed while a worker is replaced. Secrets come over the socket and
live in the memory of worker and supervisor. The daemon ends when nothing is mounted and nobody is connected.
"""

import argparse
import contextlib
import fcntl
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from app.mount.daemon.control import Connection, ControlClient, ControlServer, Disconnected, NotRunning, Refusal, listen
from app.mount.daemon.groups import Group, log_unsaved
from app.mount.daemon.heap import give_back_what_is_freed
from app.mount.daemon.mounts import Mounts
from app.mount.daemon.orders import Order
from app.mount.daemon.places import Places, make_private, private
from app.mount.daemon.processes import Process
from app.mount.daemon.secrecy import hide_this_process
from app.mount.daemon.supervisor import Custody, lean_command
from app.mount.sync.errors import MountError

log = logging.getLogger(__name__)

_START_SECONDS = 30.0
_END_SECONDS = 30.0
"""How long a daemon that was told to end tries to save what is pending."""
_LAST_ANSWERS_SECONDS = 10.0
"""How long it then waits for its answers to be taken."""
_INHERITED = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "COVERAGE_PROCESS_START",
)


class Daemon:
    """A worker: answers commands until nothing is left to do."""

    def __init__(self, places: Places, listener: socket.socket, custody: Custody) -> None:
        self._custody = custody
        self._state_directory = str(places.state)
        self._mounts = Mounts(places, custody, self._look_again)
        self._control = ControlServer(
            listener, places.socket, self._handle, on_fault=log.exception, on_end=self._look_again
        )
        # A pipe, because a signal's handler may write to it wherever it interrupts.
        self._woken, self._waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._told_to_end = False

    def run(self) -> int:
        """Serve; the exit status: 1 if something could not be saved."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self._mounts.take_over()
        self._control.start()
        if not self._custody.lives:
            self._control.wait_for_first(_START_SECONDS)  # it was started for a command
        woken = select.poll()
        woken.register(self._woken, select.POLLIN)
        while not self._told_to_end and not self._is_idle():
            woken.poll()
            os.read(self._woken, 4096)
        self._control.close()
        left = self._mounts.end_all(_END_SECONDS)
        log_unsaved(left)
        self._control.disconnect(_LAST_ANSWERS_SECONDS)
        return 1 if left else 0

    def _is_idle(self) -> bool:
        return self._mounts.is_empty() and not self._control.connections

    def _look_again(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: it will look
            os.write(self._waker, b"!")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._told_to_end = True
        self._look_again()

    def _handle(self, request: dict[str, Any], connection: Connection) -> dict[str, Any]:
        match request["command"]:
            case "mount":
                return self._mount(request, connection)
            case "serve":
                return self._serve(request, connection)
            case "attach":
                group = self._mounts.attach(Order.from_json(request), int(request["pid"]), Path(request["root"]))
                return self._about(group)
            case "stores":
                stores = self._mounts.stores_of(Order.from_json(request))
                return {"stores": [{"directory": store.slug, "read_only": store.read_only} for store in stores]}
            case "unmount":
                return {"unsaved": self._unmount(request), "state_directory": self._state_directory}
            case "flush":
                root = Path(request["root"]) if request.get("root") else None
                left = self._mounts.flush(root, request.get("timeout"))
                return {"unsaved": left, "state_directory": self._state_directory}
            case "status":
                return self._status(Path(request["root"]) if request.get("root") else None)
            case unknown:
                raise Refusal(f"this daemon knows no command {unknown!r}; it may be of another version: unmount all")

    def _mount(self, request: dict[str, Any], connection: Connection) -> dict[str, Any]:
        holder = Process.find(connection.pid) if request.get("hold") else None
        return self._about(self._mounts.mount(Order.from_json(request), Path(request["root"]), holder))

    def _serve(self, request: dict[str, Any], connection: Connection) -> dict[str, Any]:
        descriptors = dict(zip(request["directories"], connection.take_descriptors(), strict=True))
        holder = Process.find(connection.pid)
        if holder is None:
            raise Refusal("the command that asked has ended")
        group = self._mounts.serve(Order.from_json(request), Path(request["root"]), descriptors, holder)
        return {**self._about(group), "group": group.name}

    def _unmount(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        timeout = float(request["timeout"])
        if request.get("pid") is not None:
            return self._mounts.detach(int(request["pid"]), timeout)
        if request.get("group") is not None:
            return self._mounts.end_named(request["group"], timeout)
        return self._mounts.unmount(Path(request["root"]), timeout, force=bool(request.get("force")))

    def _about(self, group: Group) -> dict[str, Any]:
        return {"pid": os.getpid(), "state_directory": self._state_directory, **group.status()}

    def _status(self, root: Path | None) -> dict[str, Any]:
        groups = [group.status() for group in self._mounts.groups(root)]
        return {
            "pid": os.getpid(),
            "supervisor_pid": os.getppid() if self._custody.supervised else None,
            "restarts": self._custody.lives,
            "state_directory": self._state_directory,
            "roots": [{name: value for name, value in group.items() if name != "stores"} for group in groups],
            "stores": [store for group in groups for store in group["stores"]],
        }


def connect(places: Places) -> ControlClient:
    """Connect to the daemon that runs.

    Raises:
        NotRunning: none does.

    """
    return ControlClient(places.socket)


def connect_or_start(places: Places, *, output: int | None = None) -> ControlClient:
    """Connect to the daemon, which is started first if none runs. Any number may do so at once.

    output: a descriptor for what a daemon started here prints; its log file if None.

    Raises:
        MountError: none can be started.

    """
    make_private(places.run, "MEMSTORE_RUN_DIR")
    with contextlib.suppress(NotRunning):
        return connect(places)
    with open(places.start_lock, "a", opener=private) as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        with contextlib.suppress(NotRunning):
            return connect(places)
        _start(places, output)
        return connect(places)


def call(
    places: Places, command: str, *, output: int | None = None, **members: Any
) -> tuple[ControlClient, dict[str, Any]]:
    """Connect, starting the daemon if need be, and ask for something; the connection stays open for more.

    A daemon that was about to end because it had nothing to do is replaced.

    Raises:
        MountError: no daemon can be started, or it ended before it answered.

    """
    for attempt in range(3):
        client = connect_or_start(places, output=output)
        try:
            return client, client.call(command, **members)
        except Disconnected:
            client.close()
            if attempt == 2:
                raise MountError(f"the daemon ended before it answered; its log {places.log} says why") from None
        except BaseException:
            client.close()
            raise
    raise AssertionError("unreachable")


def _start(places: Places, output: int | None) -> None:
    """Start a daemon; the caller holds the start lock. Its socket takes connections when this returns."""
    lock = os.open(places.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(lock, places)
        make_private(places.state, "MEMSTORE_STATE_DIR")
        make_private(places.cache, "MEMSTORE_CACHE_DIR")
        with listen(places.socket) as listener, open(places.log, "ab", opener=private) as printed:
            worker = [
                *(sys.executable, "-P", "-m", "app.mount.daemon.daemon"),
                *("--run", str(places.run), "--state", str(places.state), "--cache", str(places.cache)),
                *("--listener", str(listener.fileno())),
            ]
            passed = f"{listener.fileno()},{lock}"
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own code
                lean_command("app.mount.daemon.secrecy", "supervise", [passed, *worker]),
                stdin=subprocess.DEVNULL,
                stdout=printed if output is None else output,
                stderr=subprocess.STDOUT,
                env=_environment(os.environ),
                cwd="/",
                pass_fds=[listener.fileno(), lock],
                start_new_session=True,
            )
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{process.pid}\n".encode(), 0)
            process.returncode = 0  # it goes on without us: nobody here is to wait for it
    finally:
        os.close(lock)


def _lock(lock: int, places: Places) -> None:
    """Take the daemon's lock, waiting for one that is ending."""
    until = time.monotonic() + _START_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                pid = os.pread(lock, 32, 0).decode().strip()
                raise MountError(f"a daemon (process {pid}) holds {places.lock}, but does not answer") from None
            time.sleep(0.01)
        else:
            return


def _environment(around: Mapping[str, str]) -> dict[str, str]:
    """What the daemon gets of the environment: no secret of anybody's."""
    return {name: around[name] for name in _INHERITED if name in around}


def main() -> int:
    """The worker's process."""
    hide_this_process()
    give_back_what_is_freed()
    parser = argparse.ArgumentParser()
    for name in ("run", "state", "cache"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--listener", type=int, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    os.set_inheritable(options.listener, False)
    places = Places(options.run, options.state, options.cache)
    return Daemon(places, socket.socket(fileno=options.listener), Custody.from_environment()).run()


if __name__ == "__main__":
    sys.exit(main())
