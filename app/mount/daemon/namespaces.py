"""Giving stores to one command or one sandbox alone: mounts in a private or foreign mount namespace.

Everything that changes a process's namespaces happens in a helper process of its own, never in the caller's: a
process with threads can't, and a daemon must not. The helper sends back one /dev/fuse descriptor for each store, and
the caller serves them where it is: the namespace needs neither /dev/fuse nor a capability nor any file of ours.

Nothing is written to a file system to make room for the mounts. If the directory does not exist, an existing one
above it is covered, in that namespace, by a read-only one that shows the same entries and ours.
"""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any

from app.mount.daemon.supervisor import lean_command
from app.mount.sync.errors import MountError

ROOT = "/mnt/memory"

MAX_STORES = 64
"""More than a session may attach, and fewer than the descriptors one message can carry."""
MESSAGE_BYTES = 65536
# SIGCHLD stays ours; SIGKILL and SIGSTOP can't be caught; SIGTSTP and its kin stop both processes by themselves.
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT)


@dataclass(frozen=True, slots=True)
class Store:
    """One store to show in a namespace."""

    directory: str
    """Its directory's name below the root: the attachment's slug."""
    read_only: bool = False
    name: str = ""
    """Its source in mount tables; empty: the directory."""


def run(
    command: Sequence[str],
    stores: Sequence[Store],
    serve: Callable[[dict[str, int]], None],
    *,
    root: str = ROOT,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run a command in a private user and mount namespace that has the stores at `root`; return its exit status.

    `serve` gets each store's /dev/fuse descriptor by directory, and returns when sessions answer on them; only then
    does the command start. The descriptors are the caller's. Signals that ask a program to end or to do something
    (SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2) go on to the command; call this from the main thread.
    The status is 128 + the number if a signal ended the command, 127 if it was not found, 126 if it can't be started.

    As root the command keeps its user and group IDs, and its capabilities in the new user namespace, where it can
    neither unmount the stores nor make a read-only one writable. Without root the mounts are made in the user
    namespace itself, where the system allows one; /dev/fuse must be open to the user. Raises MountError.
    """
    with _helper("_run_in_namespace", {"command": list(command), **_job(stores, root)}, environment) as helper:
        descriptors = helper.receive_descriptors(stores)
        try:
            serve(descriptors)
        except BaseException:
            for fd in descriptors.values():
                with suppress(OSError):
                    os.close(fd)
            raise
        with helper.passing_signals_on():
            helper.confine()
            return helper.wait_for_command()


def attach(pid: int, stores: Sequence[Store], *, root: str = ROOT) -> dict[str, int]:
    """Give the stores to a process that is already running, and to all that share its mount namespace.

    Returns the /dev/fuse descriptors by directory; programs that use the mounts wait until they are served. What was
    attached at `root` before is replaced. As root, or as the owner of the process's user namespace. Raises MountError.
    """
    with _helper("_attach_to_process", {"pid": pid, **_job(stores, root)}) as helper:
        descriptors = helper.receive_descriptors(stores)
        helper.wait_for_end()
        return descriptors


def detach(pid: int, *, root: str = ROOT) -> None:
    """Take away what `attach` gave to a process; programs that still use it keep it until they close it."""
    with _helper("_detach_from_process", {"pid": pid, "root": root}) as helper:
        helper.wait_for_end()


def _job(stores: Sequence[Store], root: str) -> dict[str, Any]:
    if len(stores) > MAX_STORES:
        raise MountError(f"{len(stores)} stores; at most {MAX_STORES} can be attached at once")
    return {"root": root, "stores": [asdict(store) for store in stores]}


class _Helper:
    """The helper process, and the socket on which it reports."""

    def __init__(self, process: subprocess.Popen[bytes], channel: socket.socket) -> None:
        self.process = process
        self._channel = channel

    def receive_descriptors(self, stores: Sequence[Store]) -> dict[str, int]:
        """One descriptor for each store, by directory."""
        _, descriptors = self._receive()
        return dict(zip((store.directory for store in stores), descriptors, strict=True))

    def confine(self) -> None:
        """Let the command start, in a user namespace whose IDs are those outside."""
        self._channel.sendall(b"{}")
        message, _ = self._receive()
        if message.get("wants_ids"):
            # The whole range, from outside: only a privileged process of the parent namespace may.
            for table in ("uid_map", "gid_map"):
                with open(f"/proc/{self.process.pid}/{table}", "w", encoding="ascii") as file:
                    file.write(f"0 0 {2**32 - 1}")
            self._channel.sendall(b"{}")

    def wait_for_end(self) -> None:
        """Wait for the helper to have done its job. Raises MountError with its reason if it could not."""
        self._receive()
        self.process.wait()

    @contextmanager
    def passing_signals_on(self) -> Iterator[None]:
        """Signals go to the command: from before it starts, so that none ends this process in its place."""

        def pass_on(number: int, frame: FrameType | None) -> None:
            if number in FROM_TERMINAL and _in_foreground():
                return  # the terminal sent it to the command too
            with suppress(ProcessLookupError):
                self.process.send_signal(number)

        previous = {number: signal.signal(number, pass_on) for number in PASSED_ON}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def wait_for_command(self) -> int:
        """Wait for the command; its exit status as a shell gives it."""
        status = self.process.wait()
        return status if status >= 0 else 128 - status

    def _receive(self) -> tuple[dict[str, Any], list[int]]:
        data, descriptors, _, _ = socket.recv_fds(self._channel, MESSAGE_BYTES, MAX_STORES)
        if not data:
            raise MountError(f"the process that makes the mounts ended with status {self.process.wait()}")
        message: dict[str, Any] = json.loads(data)
        if "error" in message:
            raise MountError(message["error"])
        return message, descriptors


@contextmanager
def _helper(function: str, job: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Iterator[_Helper]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            arguments = [str(theirs.fileno()), json.dumps(job)]
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own code
                lean_command("app.mount.daemon.namespace_helper", function, arguments),
                pass_fds=[theirs.fileno()],
                env=environment,
            )
        try:
            yield _Helper(process, ours)
        except BaseException:
            process.kill()
            process.wait()
            raise


def _in_foreground() -> bool:
    try:
        with open("/dev/tty", "rb", buffering=0) as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False
