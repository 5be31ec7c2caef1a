"""How commands talk to the daemon: JSON lines over a Unix socket.

A request is one line, `{"command": NAME, …}`; its answer is one line, `{"ok": true, "result": {…}}` or
`{"ok": false, "error": SENTENCE, "result": {…}}`. A connection may carry any number of requests, one at a time, and
a request may bring descriptors.

The socket gives everything the daemon can do, so it answers only its own user and root, and only from its own user
namespace: root inside a sandbox may look like root from here.
"""

import contextlib
import json
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from app.mount.sync.errors import MountError

_LONGEST_LINE = 8 << 20
_MOST_DESCRIPTORS = 64
_SO_PEERPIDFD = 77
"""Linux 6.5; Python has no name for it yet."""


class NotRunning(Exception):
    """No daemon listens on the socket."""


class Disconnected(Exception):
    """The daemon ended before it answered."""


class Refusal(MountError):
    """The daemon said no; the text says why, `result` holds what it could say besides."""

    def __init__(self, message: str, result: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.result = result or {}


class Connection:
    """One command's connection, as the daemon sees it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        """Of the process that connected."""
        self.descriptors: list[int] = []
        """What the present request brought, unless it was taken; the rest is closed when it is answered."""

    def take_descriptors(self) -> list[int]:
        """What the request brought; the caller closes them."""
        taken = list(self.descriptors)
        self.descriptors.clear()
        return taken

    def drop_descriptors(self) -> None:
        """Close those that nobody took."""
        while self.descriptors:
            os.close(self.descriptors.pop())


OnFault = Callable[[str], None]
Handler = Callable[[dict[str, Any], Connection], dict[str, Any]]
"""Answers one request. A `MountError` is its refusal; anything else is a fault, which is answered and logged."""


def listen(path: Path) -> socket.socket:
    """Listen on `path`, over whatever a daemon that died left there: the caller holds the daemon's lock."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        path.chmod(0o600)  # nobody could connect yet: it does not listen
        listener.listen(64)
    except BaseException:
        listener.close()
        raise
    return listener


class ControlServer:
    """The daemon's end. Connections are served in threads of their own."""

    def __init__(
        self, listener: socket.socket, path: Path, handle: Handler, *, on_fault: OnFault, on_end: Callable[[], None]
    ) -> None:
        """Take over a socket of `listen`.

        on_fault: called in the handler of an exception with a sentence about what failed, for the log.
        on_end: called after a connection ended.
        """
        self._listener = listener
        self._path = path
        self._handle = handle
        self._on_fault = on_fault
        self._on_end = on_end
        self._changed = threading.Condition()
        self._peers: set[socket.socket] = set()
        self._came = 0
        self._thread = threading.Thread(target=self._accept, name="control", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stop taking connections. Those there are go on until their commands end them."""
        # Unlinked first: a command that finds no socket starts another daemon instead of waiting for this one.
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @property
    def connections(self) -> int:
        """How many are open."""
        with self._changed:
            return len(self._peers)

    def wait_for_first(self, timeout: float) -> bool:
        """Wait until somebody has connected; False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._came > 0, timeout)

    def disconnect(self, timeout: float) -> bool:
        """End every connection; False if one is still busy after `timeout` seconds."""
        with self._changed:
            for peer in self._peers:
                with contextlib.suppress(OSError):
                    peer.shutdown(socket.SHUT_RD)  # a request in hand is still answered
            return self._changed.wait_for(lambda: not self._peers, timeout)

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return  # closed
            with self._changed:
                self._peers.add(peer)
                self._came += 1
                self._changed.notify_all()
            threading.Thread(target=self._serve, args=(peer,), name="command", daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError):  # a command that went away
                self._converse(peer)
        finally:
            with self._changed:
                self._peers.discard(peer)
                peer.close()
                self._changed.notify_all()
            self._on_end()

    def _converse(self, peer: socket.socket) -> None:
        pid, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if reason := _why_not(peer, pid, uid):
            _send(peer, {"ok": False, "error": reason, "result": {}})
            return
        connection = Connection(pid)
        try:
            for line in _lines(peer, connection.descriptors):
                answer = self._answer(line, connection)
                connection.drop_descriptors()
                _send(peer, answer)
        finally:
            connection.drop_descriptors()

    def _answer(self, line: bytes, connection: Connection) -> dict[str, Any]:
        try:
            request = json.loads(line)
            if not isinstance(request, dict) or not isinstance(request.get("command"), str):
                raise Refusal("a request is a JSON object with a member 'command'")
            return {"ok": True, "result": self._handle(request, connection)}
        except Refusal as refusal:
            return {"ok": False, "error": str(refusal), "result": refusal.result}
        except MountError as error:
            return {"ok": False, "error": str(error), "result": {}}
        except ValueError as error:
            return {"ok": False, "error": f"the request can't be read: {error}", "result": {}}
        except Exception as error:  # a fault in one command must not take the daemon along
            self._on_fault("a command failed")
            return {"ok": False, "error": f"the daemon failed: {error!r}; its log says more", "result": {}}


class ControlClient:
    """A command's end."""

    def __init__(self, path: Path) -> None:
        """Connect.

        Raises:
            NotRunning: nobody listens there.

        """
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError) as error:
            self._socket.close()
            raise NotRunning(f"no daemon listens on {path}") from error
        except OSError:
            self._socket.close()
            raise
        self._lines = _lines(self._socket)

    def call(self, command: str, *, descriptors: Sequence[int] = (), **members: Any) -> dict[str, Any]:
        """Send a request and wait for its result, as long as it takes.

        descriptors: the daemon gets copies; the caller's stay open.

        Raises:
            Refusal: the daemon refused it.
            Disconnected: the daemon ended before it answered.

        """
        try:
            # A command that is refused at the door finds the reason waiting, although nobody takes the request.
            with contextlib.suppress(BrokenPipeError):
                _send(self._socket, {"command": command, **members}, descriptors)
            line = next(self._lines, None)
        except OSError as error:
            raise Disconnected(str(error)) from error
        if line is None:
            raise Disconnected("the daemon ended before it answered")
        answer = json.loads(line)
        if not answer["ok"]:
            raise Refusal(answer["error"], answer["result"])
        result: dict[str, Any] = answer["result"]
        return result

    def fileno(self) -> int:
        """The socket's descriptor: readable when the daemon ended the connection (between two calls)."""
        return self._socket.fileno()

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def __enter__(self) -> "ControlClient":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _send(to: socket.socket, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    line = json.dumps(message).encode() + b"\n"
    if descriptors:
        line = line[socket.send_fds(to, [line], list(descriptors)) :]
    to.sendall(line)


def _lines(source: socket.socket, descriptors: list[int] | None = None) -> Iterator[bytes]:
    """The lines that arrive; the descriptors that came with them are put into the list."""
    rest = b""
    while True:
        line, newline, after = rest.partition(b"\n")
        if newline:
            yield line
            rest = after
            continue
        if len(rest) > _LONGEST_LINE:
            raise OSError(f"a line of more than {_LONGEST_LINE} bytes")
        if descriptors is None:
            got = source.recv(65_536)
        else:
            got, received, _, _ = socket.recv_fds(source, 65_536, _MOST_DESCRIPTORS)
            for descriptor in received:
                os.set_inheritable(descriptor, False)
            descriptors += received
        if not got:
            return
        rest += got


def _why_not(peer: socket.socket, pid: int, uid: int) -> str | None:
    """Why this peer gets no answer; None if it does."""
    if uid not in (0, os.geteuid()):
        return f"this daemon belongs to user {os.geteuid()}, not to {uid}"
    if uid != os.geteuid():
        return None  # root of this host: a sandbox's root is another number outside of it, or ours
    try:
        same = os.stat(f"/proc/{pid}/ns/user").st_ino == os.stat("/proc/self/ns/user").st_ino
    except OSError:
        same = False
    if not same or _is_gone(peer):
        return "this daemon answers only processes of its own user namespace"
    return None


def _is_gone(peer: socket.socket) -> bool:
    """Whether the process that connected has ended: its number could be another's by now."""
    try:
        pidfd = peer.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError:
        return False  # an older kernel: its number is all there is
    try:
        ended = select.poll()
        ended.register(pidfd, select.POLLIN)
        return bool(ended.poll(0))
    finally:
        os.close(pidfd)
