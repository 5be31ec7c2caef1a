"""Stores that one command, or one sandbox, has and nobody else."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from app.mount.daemon import namespaces
from app.mount.daemon.namespaces import Store
from app.mount.fuse.kernel import mounting
from app.mount.sync.errors import MountError
from tests.mount.fuse_mounts import LIVE_SECONDS, Mounts
from tests.mount.tiny import TinyFilesystem

WAIT_SECONDS = 60.0
PROJECT = Path(__file__).parents[2]
STORES: list[tuple[str, bool, dict[str, str]]] = [
    ("notes", False, {"a.md": "alpha\n"}),
    ("reference", True, {"r.md": "rules\n"}),
]
NOBODY = 65534

pytestmark = pytest.mark.usefixtures("fuse")


def below_root(process: int | str = "self") -> list[mounting.Mounted]:
    return [mounted for mounted in mounting.table(process) if mounted.path.startswith(namespaces.ROOT)]


@pytest.fixture(autouse=True)
def no_mount_is_left_on_the_host() -> Iterator[None]:
    before = below_root()
    yield
    assert below_root() == before


Results = tuple[int, str, str, dict[str, dict[str, str]]]


def runner(*command: str, python: str = sys.executable) -> list[str]:
    return [python, "-m", "tests.mount.runner", json.dumps(STORES), *command]


class User:
    """Who runs a command in a namespace."""

    def __init__(self, uid: int, prefix: Sequence[str] = (), python: str = sys.executable) -> None:
        self.uid = uid
        self._prefix = prefix
        self._python = python

    def run(self, *command: str) -> Results:
        """Status, output, errors, and what the stores held at the end."""
        done = subprocess.run(
            [*self._prefix, *runner(*command, python=self._python)],
            check=False, cwd=PROJECT, capture_output=True, text=True, timeout=WAIT_SECONDS,
        )  # fmt: skip
        *errors, last = done.stderr.splitlines() or [""]
        left = json.loads(last) if last.startswith("{") else {}
        return done.returncode, done.stdout, "\n".join(errors if left else [*errors, last]), left


def run(*command: str) -> Results:
    return User(0).run(*command)


NESTED = """
import subprocess, sys
import app.mount.daemon.namespaces
subprocess.run([sys.executable, "-I", "-S", "-c", ""], check=True)
"""


@pytest.fixture(params=["root", "unprivileged"])
def user(request: pytest.FixtureRequest, tmp_path: Path) -> User:
    """Root, and an ordinary user who may open /dev/fuse, as on most systems."""
    if request.param == "root":
        return User(0)
    device = tmp_path / "fuse"
    os.mknod(device, 0o20666, os.makedev(10, 229))
    device.chmod(0o666)
    script = f'mount --bind {device} /dev/fuse && exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups "$@"'
    prefix = ["unshare", "-m", "sh", "-c", script, "sh"]
    check = [*prefix, "sh", "-c", "exec 3<>/dev/fuse && unshare -Ur true"]
    allowed = subprocess.run(check, check=False, capture_output=True, text=True)
    if allowed.returncode != 0:
        pytest.skip(f"an ordinary user gets no user namespace with /dev/fuse here: {allowed.stderr.strip()}")
    for python in (sys.executable, "/usr/bin/python3"):
        works = subprocess.run([*prefix, python, "-c", NESTED], check=False, cwd=PROJECT, capture_output=True)
        if works.returncode == 0:
            return User(NOBODY, prefix, python)
    pytest.skip(f"neither {sys.executable} nor /usr/bin/python3 (3.11 or newer) can be run by an ordinary user")


class TestRun:
    def test_the_command_reads_and_writes_its_stores(self, user: User) -> None:
        script = "cd /mnt/memory; ls; cat notes/a.md reference/r.md; echo more >> notes/a.md; echo new > notes/n.md"
        status, out, errors, left = user.run("sh", "-ec", script)
        assert (status, out) == (0, "notes\nreference\nalpha\nrules\n"), errors
        assert left == {"notes": {"a.md": "alpha\nmore\n", "n.md": "new\n"}, "reference": {"r.md": "rules\n"}}

    def test_the_command_keeps_its_identity_and_directory(self, user: User) -> None:
        status, out, errors, _ = user.run("sh", "-ec", "id -u; id -g; pwd")
        expected = str(user.uid)
        assert (status, out.split()) == (0, [expected, expected, str(PROJECT)]), errors

    @pytest.mark.parametrize(
        "change",
        [
            "echo x > reference/r.md",
            "rm reference/r.md",
            "mount -o remount,rw reference && echo x > reference/r.md",
            "mount -o remount,bind,rw reference && echo x > reference/r.md",
            "umount reference && echo x > reference/r.md",
            "unshare -Urm sh -c 'mount -o remount,bind,rw reference; umount reference; echo x > reference/r.md'",
            "echo x > file",
            "mkdir store",
            "rmdir notes",
            "mount -o remount,bind,rw . && echo x > file",
        ],
    )
    def test_what_is_read_only_stays_so_whatever_the_command_does(self, user: User, change: str) -> None:
        status, _, errors, left = user.run("sh", "-ec", f"cd /mnt/memory; {change}")
        assert status != 0
        assert errors
        assert left["reference"] == {"r.md": "rules\n"}

    def test_the_rest_of_the_file_system_is_as_it_was(self, user: User) -> None:
        listing = "ls -A / /etc /mnt; cat /etc/hostname"
        _, out, errors, _ = user.run("sh", "-c", listing)
        outside = subprocess.run(["sh", "-c", listing], check=True, capture_output=True, text=True).stdout
        shown, there = (set(text.splitlines()) for text in (out, outside))
        assert (shown - there - {"memory"}, there - shown) == (set(), set()), errors

    def test_root_may_still_mount_what_is_its_own(self) -> None:
        assert run("sh", "-ec", "mount -t tmpfs mine /tmp; ls -A /tmp")[:3] == (0, "", "")

    def test_the_mounts_do_not_spread_where_the_system_shares_them(self) -> None:
        """Most distributions make every mount shared."""
        script = '"$@"; grep " /mnt/memory" /proc/mounts; true'
        user = User(0, ["unshare", "-m", "--propagation", "shared", "sh", "-c", script, "sh"])
        assert user.run("cat", "/mnt/memory/notes/a.md")[:2] == (0, "alpha\n")

    @pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 128 + 15)])
    def test_its_exit_status_is_ours(self, script: str, status: int) -> None:
        assert run("sh", "-c", script)[0] == status

    def test_a_command_that_can_not_be_started_says_why(self, tmp_path: Path) -> None:
        status, _, errors, _ = run("no-such-program")
        assert (status, errors) == (127, "no-such-program: No such file or directory")
        (tmp_path / "plain").touch()
        status, _, errors, _ = run(str(tmp_path / "plain"))
        assert (status, errors) == (126, f"{tmp_path}/plain: Permission denied")

    def test_programs_in_a_pipe_end_quietly_when_their_reader_does(self) -> None:
        assert run("sh", "-c", "yes | head -n 1")[:3] == (0, "y\n", "")

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
    def test_signals_reach_the_command(self, number: signal.Signals) -> None:
        script = f"trap 'echo got it; exit 5' {int(number)}; echo ready; while :; do sleep 0.01; done"
        with subprocess.Popen(
            runner("sh", "-c", script), cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(number)
            out, errors = process.communicate(timeout=WAIT_SECONDS)
        assert (process.returncode, out) == (5, "got it\n"), errors

    def test_two_commands_at_once_do_not_see_each_other(self) -> None:
        script = "cd /mnt/memory/notes; echo first > a.md; echo ready; read line; cat a.md"
        with subprocess.Popen(
            runner("sh", "-c", script),
            cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        ) as first:  # fmt: skip
            assert first.stdout is not None
            assert first.stdout.readline() == "ready\n"
            assert run("sh", "-c", "echo second > /mnt/memory/notes/a.md")[3]["notes"] == {"a.md": "second\n"}
            assert first.communicate("go\n", timeout=WAIT_SECONDS)[0] == "first\n"

    def test_what_fails_in_serving_starts_no_command(self, tmp_path: Path) -> None:
        def serve(descriptors: dict[str, int]) -> None:
            raise MountError("not today")

        with pytest.raises(MountError, match="not today"):
            namespaces.run(["touch", str(tmp_path / "ran")], [Store("notes")], serve)
        assert not (tmp_path / "ran").exists()

    def test_room_is_made_beside_what_a_directory_holds_and_in_the_namespace_alone(
        self, mounts: Mounts, tmp_path: Path
    ) -> None:
        (tmp_path / "there/directory").mkdir(parents=True)
        (tmp_path / "there/directory/file").write_text("in a directory\n")
        (tmp_path / "there/file").write_text("a file\n")
        (tmp_path / "there/link").symlink_to("file")
        root = tmp_path / "there/new/memory"

        def serve(descriptors: dict[str, int]) -> None:
            for fd in descriptors.values():
                assert mounts.serve(fd, TinyFilesystem({"a.md": b"alpha\n"})).live.wait(LIVE_SECONDS)

        script = "ls -A; cat directory/file file; readlink link; cat new/memory/notes/a.md; echo more >> directory/file"
        script = f"cd {tmp_path}/there; exec > ../out; {script}; touch new/file || touch file2 || echo read-only"
        assert namespaces.run(["sh", "-c", script], [Store("notes")], serve, root=str(root)) == 0
        assert (tmp_path / "out").read_text().splitlines() == [
            "directory", "file", "link", "new", "in a directory", "a file", "file", "alpha", "read-only",
        ]  # fmt: skip
        assert (tmp_path / "there/directory/file").read_text() == "in a directory\nmore\n"
        assert sorted(os.listdir(tmp_path / "there")) == ["directory", "file", "link"]

    def test_a_root_that_would_need_a_change_of_the_host_is_refused(self) -> None:
        with pytest.raises(MountError, match="make the directory /not-there"):
            namespaces.run(["true"], [Store("notes")], lambda descriptors: None, root="/not-there/memory")
        assert not Path("/not-there").exists()


@contextmanager
def sandbox(*arguments: str, setup: str = "true") -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A shell in namespaces of its own, and the PID of its first process; lines go in, output comes out."""
    script = f"{setup}; echo $$ ready; exec sh"
    command = [*arguments, "sh", "-c", script]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.endswith(" ready\n"), line
        pid = process.pid
        while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            pid = int(children[0])
        try:
            yield process, pid
        finally:
            with suppress(BrokenPipeError):
                process.communicate("exit\n", timeout=WAIT_SECONDS)


UNPRIVILEGED = ("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups")
SANDBOXES = {
    "root's": ("unshare", "-m"),
    "root's with user and pid": ("unshare", "-Urmpf", "--mount-proc", "--kill-child"),
    "unprivileged": (*UNPRIVILEGED, "unshare", "-Urmpf", "--mount-proc", "--kill-child"),
}


def ask(process: subprocess.Popen[str], script: str) -> list[str]:
    """Run lines in a sandbox's shell and return what they printed."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{{ {script}; }} 2>&1; echo '--end'\n")
    process.stdin.flush()
    lines = []
    while (line := process.stdout.readline()) not in ("--end\n", ""):
        lines.append(line.rstrip("\n"))
    return lines


class TestAttach:
    @pytest.fixture
    def filesystems(self) -> dict[str, TinyFilesystem]:
        return {
            directory: TinyFilesystem({name: text.encode() for name, text in files.items()})
            for directory, _, files in STORES
        }

    def attach(self, mounts: Mounts, pid: int, filesystems: Mapping[str, TinyFilesystem]) -> None:
        stores = [Store("notes"), Store("reference", read_only=True)]
        for directory, fd in namespaces.attach(pid, stores).items():
            assert mounts.serve(fd, filesystems[directory]).live.wait(LIVE_SECONDS)

    @pytest.mark.parametrize("kind", SANDBOXES)
    def test_a_running_sandbox_gets_the_stores(
        self, mounts: Mounts, filesystems: dict[str, TinyFilesystem], kind: str
    ) -> None:
        with sandbox(*SANDBOXES[kind]) as (process, pid):
            self.attach(mounts, pid, filesystems)
            assert ask(process, "cd /mnt/memory; ls; cat notes/a.md reference/r.md") == [
                "notes", "reference", "alpha", "rules",
            ]  # fmt: skip
            ask(process, "echo more >> notes/a.md; echo no > reference/r.md")
            assert filesystems["notes"]["a.md"] == b"alpha\nmore\n"
            assert filesystems["reference"]["r.md"] == b"rules\n"

    @pytest.mark.parametrize("kind", SANDBOXES)
    def test_it_can_not_make_a_read_only_store_writable(
        self, mounts: Mounts, filesystems: dict[str, TinyFilesystem], kind: str
    ) -> None:
        with sandbox(*SANDBOXES[kind]) as (process, pid):
            self.attach(mounts, pid, filesystems)
            ask(
                process,
                "cd /mnt/memory/reference; mount -o remount,bind,rw .; echo no > r.md; rm r.md",
            )
            assert filesystems["reference"]["r.md"] == b"rules\n"
            assert ask(process, "cat /mnt/memory/reference/r.md") == ["rules"]

    def test_a_second_attach_replaces_the_first(self, mounts: Mounts, filesystems: dict[str, TinyFilesystem]) -> None:
        with sandbox(*SANDBOXES["unprivileged"]) as (process, pid):
            self.attach(mounts, pid, filesystems)
            other = {name: TinyFilesystem({"other.md": b"other\n"}) for name in filesystems}
            self.attach(mounts, pid, other)
            assert ask(process, "ls /mnt/memory/notes; grep -c ' /mnt/memory/' /proc/mounts") == ["other.md", "2"]

    def test_it_can_be_taken_away_again(self, mounts: Mounts, filesystems: dict[str, TinyFilesystem]) -> None:
        with sandbox(*SANDBOXES["unprivileged"]) as (process, pid):
            self.attach(mounts, pid, filesystems)
            namespaces.detach(pid)
            assert ask(process, "ls /mnt/memory/notes; grep -E ' /mnt(/memory.*)? ' /proc/mounts")[1:] == []

    def test_links_in_the_sandbox_lead_nowhere_outside(
        self, mounts: Mounts, filesystems: dict[str, TinyFilesystem], tmp_path: Path
    ) -> None:
        """The sandbox's root is a directory of the host; its /mnt/memory points to a place beside that."""
        outside, inside = tmp_path / "outside", tmp_path / "inside"
        outside.mkdir()
        for directory in ("bin", "usr/bin", "mnt", "proc"):
            (inside / directory).mkdir(parents=True)
        tmp_path.chmod(0o755)
        (inside / "mnt/memory").symlink_to(outside)
        mounted = (
            f"for d in bin usr lib lib64; do [ -e /$d ] && mkdir -p {inside}/$d && mount --rbind /$d {inside}/$d; done"
        )
        setup = f"{mounted}; mount -t proc proc {inside}/proc; exec chroot {inside} sh -c 'echo 1 ready; exec sh'"
        with sandbox("unshare", "-m", setup=setup) as (process, pid):
            with pytest.raises(MountError):
                namespaces.attach(pid, [Store("notes")])
            assert below_root(pid) == []
            assert ask(process, "ls -A /mnt") == ["memory"]
        assert list(outside.iterdir()) == []

    def test_the_hosts_own_namespace_is_left_alone(self) -> None:
        with pytest.raises(MountError, match="no mounts of its own"):
            namespaces.attach(os.getpid(), [Store("notes")])

    def test_a_process_that_is_gone_is_named(self) -> None:
        with subprocess.Popen(["true"]) as process:
            process.wait()
        with pytest.raises(MountError, match=f"no process {process.pid}"):
            namespaces.attach(process.pid, [Store("notes")])


def test_the_tools_these_tests_need_are_here() -> None:
    assert all(shutil.which(name) for name in ("unshare", "setpriv", "mount"))
