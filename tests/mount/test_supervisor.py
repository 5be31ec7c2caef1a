"""What a mount survives: its worker's death, at any moment."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.mount.daemon import supervisor
from app.mount.daemon.supervisor import Custody, lean_command
from app.mount.fuse.kernel import mounting
from tests.mount.fuse_mounts import Mounts

WAIT_SECONDS = 60.0
PROJECT = Path(__file__).parents[2]
HEAD = """
import os, signal, sys
from app.mount.daemon.supervisor import Custody
custody = Custody.from_environment()
"""


@contextmanager
def supervised(*worker: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A supervisor of `python …` in a process of its own; it ends with the test."""
    command = lean_command("app.mount.daemon.supervisor", "main", ["", sys.executable, *map(str, worker)])
    with subprocess.Popen(
        command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_mount(path: Path, process: subprocess.Popen[str]) -> None:
    while not any(mounted.path == str(path) for mounted in mounting.ours()):
        assert process.poll() is None, process.communicate()[1]
        os.sched_yield()


def worker_of(path: Path) -> int:
    return int((path / "pid.md").read_text())


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


class TestAMountWhoseWorkerDies:
    def test_the_request_in_hand_is_answered_by_the_next_worker(self, mounts: Mounts) -> None:
        path = mounts.place()
        with supervised("-m", "tests.mount.worker", path, "die-reading") as process:
            wait_for_mount(path, process)
            first = worker_of(path)
            assert (path / "fatal.md").read_bytes() == b"worth waiting for\n"
            assert worker_of(path) != first
            mounting.unmount(str(path))
            assert process.wait(WAIT_SECONDS) == 0

    def test_what_was_written_is_still_there_and_open_files_stay_open(self, mounts: Mounts) -> None:
        path = mounts.place()
        with supervised("-m", "tests.mount.worker", path, "serve") as process:
            wait_for_mount(path, process)
            with (path / "other.md").open("ab", buffering=0) as file:
                for number in range(3):
                    file.write(b"line %d\n" % number)
                    kill(worker_of(path))
                assert (path / "other.md").read_bytes() == b"another\nline 0\nline 1\nline 2\n"
            mounting.unmount(str(path))
            assert process.wait(WAIT_SECONDS) == 0

    def test_without_a_supervisor_the_mount_is_dead_and_can_be_taken_away(self, mounts: Mounts) -> None:
        path = mounts.place()
        command = [sys.executable, "-m", "tests.mount.worker", str(path), "serve"]
        with subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.PIPE, text=True) as process:
            wait_for_mount(path, process)
            assert worker_of(path) == process.pid
            process.kill()
        assert mounting.clean_up(str(path)) == [str(path)]

    def test_a_supervisor_that_is_killed_takes_nothing_with_it(self, mounts: Mounts) -> None:
        path = mounts.place()
        with supervised("-m", "tests.mount.worker", path, "serve") as process:
            wait_for_mount(path, process)
            worker = worker_of(path)
            process.kill()
            process.wait(WAIT_SECONDS)
            try:
                assert (path / "other.md").read_bytes() == b"another\n"
                mounting.unmount(str(path))  # its worker ends by itself
            finally:
                if mounting.ours():
                    kill(worker)


def worker(body: str) -> tuple[str, str]:
    """A worker's program: `custody` is at hand."""
    return "-c", HEAD + body


def outcome(body: str) -> tuple[int, list[str]]:
    """How a supervisor ends with such a worker, and the lines the workers printed."""
    with supervised(*worker(body)) as process:
        out, _ = process.communicate(timeout=WAIT_SECONDS)
        return process.returncode, out.splitlines()


def test_a_worker_that_ends_well_ends_the_supervisor() -> None:
    assert outcome("print('once')") == (0, ["once"])


def test_a_worker_that_never_got_going_is_not_tried_again() -> None:
    assert outcome("print('once'); sys.exit(3)") == (3, ["once"])
    assert outcome("print('once', flush=True); os.kill(os.getpid(), signal.SIGKILL)") == (137, ["once"])


def test_a_worker_that_held_something_is_started_again_with_it() -> None:
    body = """
print(custody.lives, sorted(custody.kept()), custody.state("mount"), flush=True)
if custody.lives == 0:
    r, w = os.pipe()
    os.write(w, b"in the pipe")
    custody.keep("mount", r)
    custody.save("mount", b"saved")
    os.kill(os.getpid(), signal.SIGKILL)
print(os.read(custody.kept()["mount"], 100))
"""
    assert outcome(body) == (0, ["0 [] None", "1 ['mount'] b'saved'", "b'in the pipe'"])


def test_state_is_replaced_whole_and_grows_by_pieces_over_several_lives() -> None:
    body = """
custody.keep("mount", 0)
print(custody.state("mount"), flush=True)
if custody.lives == 0:
    custody.save("mount", b"old" * 1000)
    custody.save("mount", b"new")
if custody.lives < 3:
    custody.append("mount", b"+%d" % custody.lives)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert outcome(body) == (0, ["None", "b'new+0'", "b'new+0+1'", "b'new+0+1+2'"])


def test_a_large_state_is_handed_over() -> None:
    body = """
if custody.lives == 0:
    custody.keep("mount", 0)
    custody.save("mount", bytes(10_000_000))
    os.kill(os.getpid(), signal.SIGKILL)
print(len(custody.state("mount")))
"""
    assert outcome(body) == (0, ["10000000"])


def test_what_was_released_is_not_handed_over_and_not_held_open() -> None:
    body = """
if custody.lives == 0:
    r, w = os.pipe()
    custody.keep("gone", w)
    custody.save("gone", b"state")
    custody.keep("stays", r)
    custody.release("gone")
    os.kill(os.getpid(), signal.SIGKILL)
print(sorted(custody.kept()), custody.state("gone"))
print(os.read(custody.kept()["stays"], 1))
"""
    assert outcome(body) == (0, ["['stays'] None", "b''"])


def test_many_mounts_are_handed_over() -> None:
    body = """
if custody.lives == 0:
    for number in range(150):
        custody.keep(f"mount{number}", 0)
        custody.save(f"mount{number}", b"%d" % number)
    os.kill(os.getpid(), signal.SIGKILL)
print(len(custody.kept()), all(custody.state(f"mount{n}") == b"%d" % n for n in range(150)))
"""
    assert outcome(body) == (0, ["150 True"])


def test_a_worker_that_can_not_live_is_given_up() -> None:
    status, lines = outcome("custody.keep('mount', 0); print(custody.lives, flush=True); sys.exit(4)")
    assert status == 4
    assert lines == [str(life) for life in range(supervisor.MAX_SHORT_LIVES)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_reach_the_worker(number: signal.Signals) -> None:
    body = f"""
custody.keep("mount", 0)
signal.pthread_sigmask(signal.SIG_BLOCK, [{int(number)}])
print("ready", flush=True)
signal.sigwait([{int(number)}])
print("got it", flush=True)
os._exit(0)
"""
    with supervised(*worker(body)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == "got it\n"
        assert process.wait(WAIT_SECONDS) == 0


def test_after_an_order_to_end_no_worker_is_started() -> None:
    body = """
custody.keep("mount", 0)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("ready", flush=True)
signal.sigwait([signal.SIGTERM])
os._exit(5)
"""
    with supervised(*worker(body)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.wait(WAIT_SECONDS) == 5, "a second worker would not have got as far as its handler"
        assert process.stdout.read() == ""


def test_descriptors_reach_every_worker() -> None:
    read, write = os.pipe()
    body = "print(custody.lives, file=open(int(sys.argv[1]), 'w'), flush=True)\n"
    body += "custody.keep('mount', 0)\nif custody.lives < 2: os.kill(os.getpid(), signal.SIGKILL)\n"
    command = lean_command(
        "app.mount.daemon.supervisor", "main", [str(write), sys.executable, *worker(body), str(write)]
    )
    subprocess.run(
        command, check=True, cwd=PROJECT, pass_fds=[write], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
        timeout=WAIT_SECONDS,
    )  # fmt: skip
    os.close(write)
    with open(read, "rb") as lines:
        assert lines.read() == b"0\n1\n2\n"


def test_without_a_supervisor_custody_keeps_nothing_but_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(supervisor.VARIABLE, raising=False)
    custody = Custody.from_environment()
    assert not custody.supervised
    custody.keep("mount", 0)
    custody.save("mount", b"state")
    custody.append("mount", b" and more")
    assert (custody.kept(), custody.state("mount")) == ({"mount": 0}, b"state and more")
    custody.release("mount")
    assert (custody.kept(), custody.state("mount")) == ({}, None)
