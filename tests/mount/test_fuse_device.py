"""The conversation with the kernel, through real mounts and real tools."""

import errno
import logging
import os
import select
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from app.mount.fuse.kernel import mounting, protocol
from app.mount.fuse.kernel.device import Session
from app.mount.fuse.kernel.negotiation import Wishes, negotiate
from app.mount.fuse.kernel.protocol import Opcode
from app.mount.fuse.kernel.requests import DEFERRED, Handler, Reply, Request
from tests.mount.fuse_mounts import Mounts
from tests.mount.tiny import TinyFilesystem

WAIT_SECONDS = 60.0
FILES = {"a.md": b"alpha\n", "b.md": b"beta\n", "empty.md": b"", "large.md": os.urandom(100_000)}


def tool(*arguments: str | Path) -> bytes:
    """What a program prints; it must succeed."""
    return subprocess.run(arguments, check=True, capture_output=True, timeout=WAIT_SECONDS).stdout


@pytest.fixture
def tiny() -> TinyFilesystem:
    return TinyFilesystem(FILES)


@pytest.fixture(params=[0.0, 50e-6], ids=["blocking", "spinning"])
def spin(request: pytest.FixtureRequest) -> float:
    value: float = request.param
    return value


def test_tools_list_read_and_stat_files(mounts: Mounts, tiny: TinyFilesystem, spin: float) -> None:
    path, _ = mounts.mount(tiny, spin=spin)
    assert tool("ls", path).decode().split() == sorted(FILES)
    assert tool("stat", "-c", "%s %a %F", path / "large.md") == b"100000 644 regular file\n"
    for name, content in FILES.items():
        assert tool("cat", path / name) == content


def test_tools_write_truncate_create_and_remove(mounts: Mounts, tiny: TinyFilesystem, spin: float) -> None:
    path, _ = mounts.mount(tiny, spin=spin)
    subprocess.run(["tee", path / "new.md"], input=FILES["large.md"], check=True, stdout=subprocess.DEVNULL)
    assert tiny["new.md"] == FILES["large.md"]
    tool("sh", "-c", f"cd {path}; echo more >> a.md; echo fresh > b.md; truncate -s 2 new.md; rm empty.md")
    assert (tiny["a.md"], tiny["b.md"], tiny["new.md"]) == (b"alpha\nmore\n", b"fresh\n", FILES["large.md"][:2])
    assert "empty.md" not in os.listdir(path)


def test_a_directory_that_needs_many_replies_is_listed_whole(mounts: Mounts) -> None:
    names = {f"{'long-' * 20}{number:04}.md": b"x" for number in range(500)}
    path, session = mounts.mount(TinyFilesystem(names))
    assert sorted(os.listdir(path)) == sorted(names)
    assert session.messages[Opcode.READDIR] + session.messages[Opcode.READDIRPLUS] > 2


def test_a_name_that_is_not_there_is_enoent(mounts: Mounts, tiny: TinyFilesystem) -> None:
    path, _ = mounts.mount(tiny)
    with pytest.raises(FileNotFoundError):
        (path / "missing.md").stat()


def test_an_operation_without_a_handler_is_enosys(mounts: Mounts, tiny: TinyFilesystem) -> None:
    path, _ = mounts.mount(tiny)
    with pytest.raises(OSError, match="not implemented") as raised:
        (path / "directory").mkdir()
    assert raised.value.errno == errno.ENOSYS


class TestMisbehavingHandlers:
    """Whatever a handler does, the caller gets an errno and the mount goes on."""

    def broken(self, request: Request) -> Reply:
        raise KeyError("a bug")

    def leaving(self, request: Request) -> Reply:
        raise SystemExit(3)

    def nameless(self, request: Request) -> Reply:
        raise OSError("without a number")

    def out_of_range(self, request: Request) -> Reply:
        return 5000

    def mistyped(self, request: Request) -> Reply:
        return "text"  # type: ignore[return-value]

    def too_long(self, request: Request) -> Reply:
        return bytes(1 << 20)

    @pytest.mark.parametrize("way", ["broken", "leaving", "nameless", "out_of_range", "mistyped", "too_long"])
    @pytest.mark.parametrize("deferred", [False, True], ids=["inline", "deferred"])
    def test_the_caller_gets_eio_and_the_mount_lives(
        self, mounts: Mounts, tiny: TinyFilesystem, way: str, deferred: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        path, _ = mounts.mount(tiny)
        bad = tiny.nodeid("a.md")
        misbehave: Handler = getattr(self, way)

        def read(request: Request) -> Reply:
            if request.nodeid != bad:
                return None
            return request.later(misbehave) if deferred else misbehave(request)

        tiny.before[Opcode.READ] = read
        with caplog.at_level(logging.ERROR, "app.mount.fuse.kernel.device"), pytest.raises(OSError) as raised:  # noqa: PT011
            (path / "a.md").read_bytes()
        assert raised.value.errno == errno.EIO
        assert way == "nameless" or caplog.records, "nobody was told of the bug"
        assert (path / "b.md").read_bytes() == FILES["b.md"]

    def test_a_second_answer_is_not_sent(
        self, mounts: Mounts, tiny: TinyFilesystem, caplog: pytest.LogCaptureFixture
    ) -> None:
        path, _ = mounts.mount(tiny)
        answers: list[bool] = []

        def twice(request: Request) -> Reply:
            answers.append(request.reply(b"first"))
            answers.append(request.fail(errno.EIO))
            return DEFERRED

        tiny.before[Opcode.READ] = lambda request: request.later(twice)
        with caplog.at_level(logging.ERROR, "app.mount.fuse.kernel.device"):
            assert (path / "a.md").read_bytes() == b"first"
        while len(answers) < 2:
            threading.Event().wait(0.001)
        assert answers == [True, False]
        assert "answered twice" in caplog.text


def test_errnos_reach_the_caller_returned_or_raised(mounts: Mounts, tiny: TinyFilesystem) -> None:
    path, _ = mounts.mount(tiny)

    def raising(request: Request) -> Reply:
        raise OSError(errno.EDQUOT, "full")

    for hook, expected in (
        (lambda request: errno.EFBIG, errno.EFBIG),
        (raising, errno.EDQUOT),
        (lambda request: request.later(raising), errno.EDQUOT),
        (lambda request: request.later(lambda request: errno.ESTALE), errno.ESTALE),
    ):
        tiny.before[Opcode.WRITE] = hook
        fd = os.open(path / "a.md", os.O_WRONLY)
        try:
            with pytest.raises(OSError) as raised:  # noqa: PT011
                os.write(fd, b"x")
        finally:
            os.close(fd)
        assert raised.value.errno == expected


def test_a_waiting_request_holds_nobody_else_up(mounts: Mounts, tiny: TinyFilesystem) -> None:
    path, _ = mounts.mount(tiny)
    slow = tiny.nodeid("large.md")
    waiting, go_on = threading.Event(), threading.Event()

    def fetch(request: Request) -> Reply:
        waiting.set()
        assert go_on.wait(WAIT_SECONDS)
        return tiny.content(request)

    tiny.before[Opcode.READ] = lambda request: request.later(fetch) if request.nodeid == slow else None
    with subprocess.Popen(["cat", path / "large.md"], stdout=subprocess.PIPE) as reader:
        try:
            assert waiting.wait(WAIT_SECONDS)
            assert tool("stat", "-c", "%s", path / "a.md") == b"6\n"
            assert tool("cat", path / "b.md") == FILES["b.md"]
            assert reader.poll() is None
        finally:
            go_on.set()
        assert reader.communicate(timeout=WAIT_SECONDS)[0] == FILES["large.md"]


def test_a_request_may_be_answered_by_any_thread(mounts: Mounts, tiny: TinyFilesystem) -> None:
    path, _ = mounts.mount(tiny)
    threads: list[threading.Thread] = []

    def read(request: Request) -> Reply:
        deferred = request.defer()
        thread = threading.Thread(target=lambda: request.reply(tiny.content(request)))
        threads.append(thread)
        thread.start()
        return deferred

    tiny.before[Opcode.READ] = read
    assert (path / "large.md").read_bytes() == FILES["large.md"]
    for thread in threads:
        thread.join()


def test_an_interrupted_caller_is_told_of_and_can_be_let_go(mounts: Mounts, tiny: TinyFilesystem) -> None:
    path, _ = mounts.mount(tiny)
    waiting = threading.Event()
    requests: list[Request] = []

    def lookup(request: Request) -> Reply:
        deferred = request.defer()
        request.on_interrupt = lambda: (request.fail(errno.EINTR), None)[1]
        requests.append(request)
        waiting.set()
        return deferred

    tiny.before[Opcode.LOOKUP] = lookup
    with subprocess.Popen(["stat", path / "a.md"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as caller:
        assert waiting.wait(WAIT_SECONDS)
        caller.send_signal(signal.SIGTERM)
        assert caller.wait(WAIT_SECONDS) == -signal.SIGTERM
    assert requests[0].interrupted


def test_who_asks_is_known(mounts: Mounts, tiny: TinyFilesystem) -> None:
    path, _ = mounts.mount(tiny)
    seen: list[tuple[int, int, int]] = []

    def lookup(request: Request) -> Reply:
        seen.append((request.uid, request.gid, request.pid))
        return None

    tiny.before[Opcode.LOOKUP] = lookup
    program = ["setpriv", "--reuid", "1234", "--regid", "2345", "--clear-groups", "stat", str(path / "a.md")]
    with subprocess.Popen(program, stdout=subprocess.DEVNULL) as process:
        assert process.wait(WAIT_SECONDS) == 0
    assert seen == [(1234, 2345, process.pid)]


def test_references_come_back_when_the_kernel_forgets(mounts: Mounts, tiny: TinyFilesystem) -> None:
    path, session = mounts.mount(tiny)
    tool("ls", "-l", path)
    assert tiny.references
    for name in FILES:
        session.invalidate_entry(protocol.ROOT_ID, name.encode())
    assert tiny.forgotten.wait(WAIT_SECONDS)


def test_the_kernel_asks_once_for_what_it_may_keep(mounts: Mounts, tiny: TinyFilesystem) -> None:
    path, session = mounts.mount(tiny)
    for _ in range(3):
        assert (path / "a.md").read_bytes() == FILES["a.md"]
    assert session.messages[Opcode.LOOKUP] == 1
    assert session.messages[Opcode.READ] == 1
    assert session.messages[Opcode.OPEN] == 3


class TestNotifications:
    def test_changed_content_is_read_after_the_inode_was_invalidated(
        self, mounts: Mounts, tiny: TinyFilesystem
    ) -> None:
        path, session = mounts.mount(tiny)
        assert (path / "a.md").read_bytes() == b"alpha\n"
        tiny.files[tiny.nodeid("a.md")].data = b"other\n"
        assert (path / "a.md").read_bytes() == b"alpha\n", "the kernel's cache is what this test is about"
        assert session.invalidate_inode(tiny.nodeid("a.md"))
        assert (path / "a.md").read_bytes() == b"other\n"

    def test_a_name_can_be_given_to_another_node(self, mounts: Mounts, tiny: TinyFilesystem) -> None:
        path, session = mounts.mount(tiny)
        with (path / "a.md").open("rb") as before:
            old = tiny.nodeid("a.md")
            tiny.files[old].name = b"old"
            tiny.add("a.md", b"another file\n")
            assert session.invalidate_entry(protocol.ROOT_ID, b"a.md")
            assert (path / "a.md").read_bytes() == b"another file\n"
            assert before.read() == b"alpha\n", "an open descriptor stays with its file"

    def test_a_deleted_name_is_gone(self, mounts: Mounts, tiny: TinyFilesystem) -> None:
        path, session = mounts.mount(tiny)
        nodeid = tiny.nodeid("a.md")
        assert (path / "a.md").exists()
        del tiny.files[nodeid]
        assert session.delete_entry(protocol.ROOT_ID, nodeid, b"a.md")
        assert not (path / "a.md").exists()

    def test_stored_content_needs_no_read(self, mounts: Mounts, tiny: TinyFilesystem) -> None:
        path, session = mounts.mount(tiny)
        assert (path / "a.md").stat().st_size == 6
        assert session.store(tiny.nodeid("a.md"), b"STORED"[:6])
        assert (path / "a.md").read_bytes() == b"STORED"
        assert session.messages[Opcode.READ] == 0

    def test_a_new_epoch_has_every_name_asked_for_again(self, mounts: Mounts, tiny: TinyFilesystem) -> None:
        path, session = mounts.mount(tiny)
        assert session.negotiated is not None
        names = ("a.md", "b.md")
        for name in names:
            (path / name).stat()
        if not session.increment_epoch():
            assert session.negotiated.minor < 44
            pytest.skip("this kernel has no INC_EPOCH (before Linux 6.16)")
        before = session.messages[Opcode.LOOKUP]
        for name in names:
            (path / name).stat()
        assert session.messages[Opcode.LOOKUP] == before + len(names)

    def test_what_the_kernel_does_not_know_is_no_error(self, mounts: Mounts, tiny: TinyFilesystem) -> None:
        _, session = mounts.mount(tiny)
        assert not session.invalidate_inode(987_654)
        assert not session.invalidate_entry(987_654, b"a.md")
        assert not session.store(987_654, b"data")

    def test_the_reading_thread_may_not_send_one(self, mounts: Mounts, tiny: TinyFilesystem) -> None:
        path, session = mounts.mount(tiny)
        raised: list[Exception] = []

        def lookup(request: Request) -> Reply:
            try:
                session.invalidate_inode(protocol.ROOT_ID)
            except RuntimeError as error:
                raised.append(error)
            return errno.ENOENT

        tiny.before[Opcode.LOOKUP] = lookup
        assert not (path / "a.md").exists()
        assert len(raised) == 1

    def test_after_the_mount_is_gone_they_are_no_error(self, mounts: Mounts, tiny: TinyFilesystem) -> None:
        path, session = mounts.mount(tiny)
        mounting.unmount(str(path))
        assert session.join(WAIT_SECONDS)
        assert not session.invalidate_inode(protocol.ROOT_ID)


def test_the_session_ends_with_the_mount(mounts: Mounts, tiny: TinyFilesystem, spin: float) -> None:
    path, session = mounts.mount(tiny, spin=spin)
    assert not tiny.is_closed.is_set()
    mounting.unmount(str(path))
    assert session.join(WAIT_SECONDS)
    assert tiny.is_closed.is_set()


def test_a_lazily_unmounted_session_serves_open_files_to_their_end(mounts: Mounts, tiny: TinyFilesystem) -> None:
    path, session = mounts.mount(tiny)
    with (path / "large.md").open("rb", buffering=0) as file:
        mounting.unmount(str(path), lazy=True)
        assert not session.join(0)
        assert file.read(10) == FILES["large.md"][:10]
    assert session.join(WAIT_SECONDS)


def test_a_mount_that_wants_no_open_gets_none(mounts: Mounts, tiny: TinyFilesystem) -> None:
    tiny.handlers = {code: handler for code, handler in tiny.handlers.items() if code != Opcode.OPEN}
    wishes = Wishes(features=Wishes().features | protocol.Feature.NO_OPEN_SUPPORT)
    path, session = mounts.mount(tiny, read_only=True, wishes=wishes)
    for _ in range(3):
        assert (path / "large.md").read_bytes() == FILES["large.md"]
    assert session.messages[Opcode.OPEN] == 1
    assert session.messages[Opcode.RELEASE] == 0


def test_a_wish_for_smaller_writes_is_kept_to(mounts: Mounts, tiny: TinyFilesystem) -> None:
    path, session = mounts.mount(tiny, wishes=Wishes(max_write=4096))
    (path / "a.md").write_bytes(b"x" * 40_000)
    assert tiny["a.md"] == b"x" * 40_000
    assert session.messages[Opcode.WRITE] == 10


def test_many_mounts_live_side_by_side_in_one_process(mounts: Mounts) -> None:
    paths = []
    for number in range(20):
        path, _ = mounts.mount(TinyFilesystem({"who.md": b"%d" % number}), name=f"mount{number}")
        paths.append(path)
    assert tool("cat", *(path / "who.md" for path in paths)) == b"".join(b"%d" % number for number in range(20))


class TestTakingOver:
    """What a dead worker left; test_supervisor.py kills real ones."""

    def take(self, fd: int) -> tuple[int, int, bytes]:
        """Read a request as a worker would: opcode, unique, body."""
        data = os.read(fd, 1 << 18)
        _, opcode, unique, *_ = protocol.HEADER_IN.unpack_from(data)
        return opcode, unique, data[protocol.HEADER_IN.size :]

    def test_each_request_is_carried_out_once_and_the_one_in_hand_is_marked(
        self, mounts: Mounts, tiny: TinyFilesystem, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = mounts.place()
        fd = mounting.open_device()
        mounting.mount(fd, str(path), mounting.Options("test"))
        opcode, unique, body = self.take(fd)
        assert opcode == Opcode.INIT
        reply, negotiated = negotiate(body, Wishes())
        os.write(fd, protocol.HEADER_OUT.pack(protocol.HEADER_OUT.size + len(reply), 0, unique) + reply)

        served: list[tuple[bytes, bool]] = []
        busy = threading.Event()

        def lookup(request: Request) -> Reply:
            served.append((request.body, request.resent))
            busy.set()
            return request.later(lambda request: asked.wait(WAIT_SECONDS) and errno.ENOENT)

        asked = threading.Event()
        resend = Session.resend

        def resend_late(session: Session) -> bool:
            busy.wait(0.2)  # were the session reading already, it would have something in hand now
            answer = resend(session)
            asked.set()
            return answer

        monkeypatch.setattr(Session, "resend", resend_late)
        tiny.before[Opcode.LOOKUP] = lookup
        with subprocess.Popen(["stat", path / "in-hand"], stderr=subprocess.DEVNULL) as first:
            assert self.take(fd)[0] == Opcode.LOOKUP
            with subprocess.Popen(["stat", path / "queued"], stderr=subprocess.DEVNULL) as second:
                poller = select.poll()
                poller.register(fd, select.POLLIN)
                assert poller.poll(WAIT_SECONDS * 1000)
                session = mounts.serve(fd, tiny, taken_over=True, negotiated=negotiated)
                assert session.live.is_set()
                assert tiny.negotiated == negotiated
                assert (first.wait(WAIT_SECONDS), second.wait(WAIT_SECONDS)) == (1, 1)
        assert sorted(served) == [(b"in-hand\0", True), (b"queued\0", False)]

    def test_a_worker_that_died_before_the_mount_was_live_is_replaced_too(
        self, mounts: Mounts, tiny: TinyFilesystem
    ) -> None:
        path = mounts.place()
        fd = mounting.open_device()
        mounting.mount(fd, str(path), mounting.Options("test"))
        assert self.take(fd)[0] == Opcode.INIT
        session = mounts.serve(fd, tiny, taken_over=True)
        assert session.live.wait(WAIT_SECONDS)
        assert (path / "a.md").read_bytes() == FILES["a.md"]
