"""The daemon's control socket: who gets an answer, and what becomes of bad requests and of descriptors."""

import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.mount.daemon.control import Connection, ControlClient, ControlServer, Disconnected, NotRunning, Refusal, listen
from app.mount.sync.errors import MountError
from tests.mount.hosts import wait_for
from tests.support.processes import short_directory


class Service:
    """A control server that answers for the tests."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "daemon.sock"
        self.faults: list[str] = []
        self.received: list[int] = []
        self.go_on = threading.Event()
        self.server = ControlServer(
            listen(self.path), self.path, self.handle, on_fault=self.faults.append, on_end=lambda: None
        )
        self.server.start()

    def handle(self, request: dict[str, Any], connection: Connection) -> dict[str, Any]:
        match request["command"]:
            case "echo":
                return {"said": request["text"], "pid": connection.pid}
            case "take":
                self.received = connection.take_descriptors()
                return {"count": len(self.received)}
            case "leave":
                self.received = list(connection.descriptors)
                return {}
            case "refuse":
                raise Refusal("no", {"because": "reasons"})
            case "mount":
                raise MountError("can't")
            case "wait":
                self.go_on.wait()
                return {}
        raise KeyError(request["command"])


@pytest.fixture
def service() -> Iterator[Service]:
    with short_directory() as directory:
        service = Service(directory)
        yield service
        service.go_on.set()
        service.server.close()
        assert service.server.disconnect(30)


def test_a_connection_carries_any_number_of_requests(service: Service) -> None:
    with ControlClient(service.path) as client:
        for text in ("one", "two\nlines", "x" * 300_000):
            assert client.call("echo", text=text) == {"said": text, "pid": os.getpid()}


def test_commands_do_not_wait_for_one_another(service: Service) -> None:
    with ControlClient(service.path) as slow, ControlClient(service.path) as quick:
        waiting = threading.Thread(target=slow.call, args=("wait",))
        waiting.start()
        assert quick.call("echo", text="meanwhile")["said"] == "meanwhile"
        assert waiting.is_alive()
        service.go_on.set()
        waiting.join()


def test_refusals_arrive_with_what_they_say(service: Service) -> None:
    with ControlClient(service.path) as client:
        with pytest.raises(Refusal, match="no") as refused:
            client.call("refuse")
        assert refused.value.result == {"because": "reasons"}
        with pytest.raises(Refusal, match="can't"):
            client.call("mount")
        assert client.call("echo", text="still here")["said"] == "still here"
    assert service.faults == []


def test_a_fault_in_one_command_harms_no_other(service: Service) -> None:
    with ControlClient(service.path) as client:
        with pytest.raises(Refusal, match="the daemon failed: KeyError"):
            client.call("unheard of")
        assert client.call("echo", text="still here")["said"] == "still here"
    assert service.faults == ["a command failed"]


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"no": "command"}', b"\xff"])
def test_what_is_no_request_is_refused(service: Service, line: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(service.path))
        raw.sendall(line + b"\n")
        answer = json.loads(raw.makefile().readline())
    assert answer["ok"] is False
    assert service.faults == []


def test_descriptors_come_along_and_those_nobody_takes_are_closed(service: Service) -> None:
    ours, theirs = socket.socketpair()
    with ours, ControlClient(service.path) as client:
        assert client.call("take", descriptors=[theirs.fileno()]) == {"count": 1}
        (taken,) = service.received
        assert os.fstat(taken).st_ino == os.fstat(theirs.fileno()).st_ino
        assert not os.get_inheritable(taken)
        os.close(taken)
        client.call("leave", descriptors=[theirs.fileno()])
        (left,) = service.received
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(left)
        theirs.close()
        assert ours.recv(1) == b""  # no copy is open anywhere


def test_only_the_user_can_reach_the_socket(service: Service) -> None:
    assert stat.S_IMODE(service.path.stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="a namespace whose root is the host's root can only be made by root")
def test_root_of_a_sandbox_is_not_answered(service: Service) -> None:
    code = (
        "import sys; from app.mount.daemon.control import ControlClient;"
        "print(ControlClient(sys.argv[1]).call('echo', text='let me in'))"
    )
    outside = subprocess.run([sys.executable, "-c", code, service.path], capture_output=True, text=True, check=True)
    assert "let me in" in outside.stdout
    inside = subprocess.run(
        ["unshare", "-Ur", sys.executable, "-c", code, service.path], capture_output=True, text=True, check=False
    )
    assert inside.returncode == 1
    assert "only processes of its own user namespace" in inside.stderr


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(NotRunning):
        ControlClient(tmp_path / "nothing.sock")
    with short_directory() as directory:
        listen(directory / "dead.sock").close()  # as a daemon that was killed leaves it
        with pytest.raises(NotRunning):
            ControlClient(directory / "dead.sock")
        again = listen(directory / "dead.sock")  # and the next one is not hindered by it
        ControlClient(directory / "dead.sock").close()
        again.close()


def test_a_daemon_that_ends_while_it_works_is_noticed(service: Service) -> None:
    with ControlClient(service.path) as client:
        client.call("echo", text="hello")
        service.server.close()
        assert service.server.disconnect(30)
        with pytest.raises(Disconnected):
            client.call("echo", text="anybody?")
    assert not service.path.exists()


def test_a_command_that_goes_away_is_forgotten(service: Service) -> None:
    client = ControlClient(service.path)
    client.call("echo", text="hello")
    assert service.server.connections == 1
    client.close()
    wait_for("the end of the connection", lambda: service.server.connections == 0)
    assert service.faults == []
