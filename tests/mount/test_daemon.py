"""The daemon's life: crashes of worker and supervisor, what they leave, and what the next one makes of it."""

import contextlib
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.mount.daemon import daemon
from app.mount.daemon.control import Disconnected
from app.mount.daemon.places import Places
from tests.mount.fuse_mounts import missing_for_fuse
from tests.mount.hosts import Host, Sessions, host_of, is_running, wait_for
from tests.mount.test_engine_erasure import traces
from tests.support.amounts import amount, repeats
from tests.support.backends import SQLITE_DISK, Backend, Services
from tests.support.forks import MEMSTORE
from tests.support.servers import Server, serve

FUSE, MIRROR = "fuse", "mirror"


@pytest.fixture(scope="module")
def server(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of this module's own: tests stop and start it."""
    with serve(Backend(SQLITE_DISK, services).environment(tmp_path_factory.mktemp("server"))) as server:
        yield server


@pytest.fixture(scope="module")
def sessions(server: Server) -> Iterator[Sessions]:
    with server.client() as client:
        yield Sessions(client)


@pytest.fixture
def host(server: Server) -> Iterator[Host]:
    with host_of(server) as host:
        yield host


@pytest.fixture(params=[FUSE, MIRROR])
def mode(request: pytest.FixtureRequest) -> str:
    if request.param == FUSE and (reason := missing_for_fuse()):
        pytest.skip(f"FUSE: {reason}")
    return str(request.param)


@pytest.fixture
def away(server: Server) -> Iterator[Server]:
    """The server, which the test may kill; it runs again afterwards."""
    yield server
    if server.daemon not in server.daemon.running:
        server.start()


def mount(host: Host, session: str, mode: str = FUSE, root: Path | None = None, *options: str) -> None:
    host.memstore("mount", "--session", session, "--root", root or host.root, "--mode", mode, *options)


def test_a_worker_that_is_killed_is_replaced_and_the_mount_goes_on(host: Host, sessions: Sessions, mode: str) -> None:
    notes, reference = sessions.store("Notes", plan="buy milk\n"), sessions.store("Reference", law="do not\n")
    mount(host, sessions.open(notes, read_only=(reference,)), mode)
    before = host.mounted()
    killed = host.kill_worker()
    assert (host.root / "notes/plan.md").read_text() == "buy milk\n"
    assert (host.root / "reference/law.md").read_text() == "do not\n"
    (host.root / "notes/after.md").write_text("the crash\n")
    host.memstore("flush")
    assert sessions.history(notes, "/after.md") == [("created", "session_actor")]
    known = host.status()
    assert (known["pid"] != killed, known["restarts"]) == (True, 1)
    assert host.mounted() == before
    host.memstore("unmount", "--root", host.root)
    assert host.mounted() == []


def test_descriptors_outlive_a_worker(host: Host, sessions: Sessions, fuse: None) -> None:
    notes = sessions.store("Notes", plan="buy milk\n")
    mount(host, sessions.open(notes))
    with (host.root / "notes/new.md").open("w") as writer, (host.root / "notes/plan.md").open() as reader:
        writer.write("before\n")
        writer.flush()
        for _ in range(2):
            host.kill_worker()
            writer.write("after\n")
            writer.flush()
        assert reader.read() == "buy milk\n"
    host.memstore("flush")
    assert sessions.texts(notes) == {"/plan.md": "buy milk\n", "/new.md": "before\nafter\nafter\n"}
    assert sessions.history(notes, "/new.md") == [("created", "session_actor")]


def test_commands_that_come_while_a_worker_is_replaced_wait_for_it(host: Host, sessions: Sessions, mode: str) -> None:
    notes = sessions.store("Notes")
    mount(host, sessions.open(notes), mode)
    host.kill_worker()
    assert [entry["path"] for entry in host.status()["stores"]] in ([], [f"{host.root}/notes"])
    mount(host, sessions.open(notes), mode, host.directory / "second")
    wait_for("both mounts", lambda: len(host.status()["stores"]) == 2)


def test_what_a_worker_had_only_in_its_journal_is_saved_by_the_next(
    host: Host, sessions: Sessions, away: Server, mode: str
) -> None:
    notes = sessions.store("Notes")
    mount(host, sessions.open(notes), mode)
    away.kill()
    (host.root / "notes/late.md").write_text("kept\n")
    wait_for("the journal", lambda: host.store("notes")["pending"] == ["/late.md"])
    host.kill_worker()
    wait_for("the next worker", lambda: host.status()["restarts"] == 1)
    away.start()
    host.memstore("flush")
    assert sessions.texts(notes) == {"/late.md": "kept\n"}
    assert sessions.history(notes, "/late.md") == [("created", "session_actor")]


def test_a_daemon_that_was_killed_leaves_nothing_that_blocks_the_next(
    host: Host, sessions: Sessions, away: Server, mode: str
) -> None:
    notes, reference = sessions.store("Notes", plan="buy milk\n"), sessions.store("Reference", law="do not\n")
    session = sessions.open(notes, read_only=(reference,))
    mount(host, session, mode)
    away.kill()
    (host.root / "notes/late.md").write_text("kept\n")
    wait_for("the journal", lambda: host.store("notes")["pending"] == ["/late.md"])
    host.kill()
    assert host.places.socket.exists()
    if mode == FUSE:
        with pytest.raises(OSError, match=r"not connected|connection abort"):
            os.statvfs(host.root / "notes")
    away.start()

    mount(host, session, mode)

    assert (host.root / "notes/plan.md").read_text() == "buy milk\n"
    host.memstore("flush")
    assert sessions.texts(notes) == {"/plan.md": "buy milk\n", "/late.md": "kept\n"}
    assert sessions.history(notes, "/late.md") == [("created", "session_actor")]
    host.memstore("unmount", "--root", host.root)
    assert host.mounted() == []


def test_without_the_server_a_mount_starts_from_what_it_knew(
    host: Host, sessions: Sessions, away: Server, mode: str
) -> None:
    notes = sessions.store("Notes", plan="buy milk\n")
    session = sessions.open(notes)
    mount(host, session, mode, None, "--keep-cache")
    assert (host.root / "notes/plan.md").read_text() == "buy milk\n"
    host.memstore("unmount", "--root", host.root)
    away.kill()
    mount(host, session, mode)
    assert (host.root / "notes/plan.md").read_text() == "buy milk\n"
    (host.root / "notes/late.md").write_text("kept\n")
    away.start()
    host.memstore("flush")
    assert sessions.texts(notes) == {"/plan.md": "buy milk\n", "/late.md": "kept\n"}


@pytest.mark.parametrize("how", ["the key is refused", "the session is gone", "the store is deleted"])
def test_who_may_not_open_a_store_again_finds_no_copy_of_it_here(
    host: Host, sessions: Sessions, away: Server, how: str
) -> None:
    secret = f"MARKER-{uuid.uuid4().hex}"
    notes, other = sessions.store("Notes", **{secret: secret}), sessions.store("Other")
    session = sessions.open(notes, other)
    order = ("mount", "--session", session, "--root", host.root, "--mode", MIRROR, "--keep-cache")
    host.memstore(*order)
    away.kill()
    (host.root / "notes/late.md").write_text("kept\n")
    wait_for("the journal", lambda: host.store("notes")["pending"] == ["/late.md"])
    host.memstore("unmount", "--root", host.root, "--timeout", "0", check=False)
    away.start()
    assert traces(host.directory, secret)
    if how == "the session is gone":
        sessions.beta.sessions.delete(session)
    if how == "the store is deleted":
        sessions.beta.memory_stores.delete(notes)
    key = {"MEMSTORE_API_KEY": "msk_none"} if how == "the key is refused" else {}
    again = host.memstore(*order, environment=key, check=False)
    assert again.returncode == 2
    assert "not saved, and still in the journal in" in again.stderr
    assert "/late.md" in again.stderr
    assert traces(host.directory, secret) == []
    assert traces(host.places.state, "late.md")


def test_an_unsent_edit_of_a_memory_that_was_erased_meanwhile_is_kept_by_the_next_mount_and_never_sent(
    host: Host, sessions: Sessions, away: Server, mode: str
) -> None:
    secret = f"MARKER-{uuid.uuid4().hex}"
    text = f"# Person\n\n{secret} likes tea\n"
    notes = sessions.store("Notes", person=text, untouched=text, plan="buy milk\n", late=text)
    session = sessions.open(notes)
    mount(host, session, mode)
    root = host.root / "notes"
    assert (root / "person.md").read_text() == (root / "untouched.md").read_text() == text
    away.kill()
    with (root / "person.md").open("a") as edited:
        edited.write("an edit\n")
    wait_for("the journal", lambda: host.store("notes")["pending"] == ["/person.md"])
    host.kill()
    unsent = ["/person.md"]
    if mode == MIRROR:  # its files are still there
        with (root / "late.md").open("a") as edited:
            edited.write("an edit of which no daemon knows\n")
        unsent.insert(0, "/late.md")
    away.start()
    away.cli("forget", "--store", notes, "--contains", secret, "--yes")

    mount(host, session, mode)

    wait_for("what is kept", lambda: sorted(item["path"] for item in host.store("notes")["kept"]) == unsent)
    known = host.store("notes")["kept"]
    assert all(item["reason"].startswith("erased") and secret in Path(item["place"]).read_text() for item in known)
    wait_for("the tree", lambda: sorted(path.name for path in root.iterdir()) == ["plan.md"])
    ended = host.memstore("unmount", "--root", host.root, check=False)
    assert ended.returncode == 1
    assert all(f"notes{path}  ({notes}/" in ended.stderr for path in unsent)
    assert sessions.texts(notes) == {"/plan.md": "buy milk\n"}
    assert [sessions.history(notes, path) for path in ("/person.md", "/late.md", "/untouched.md")] == [[], [], []]
    for item in known:
        host.memstore("kept", "discard", f"{notes}/{item['id']}")
    assert traces(host.directory, secret) == []


def test_another_daemon_does_not_take_what_one_has(host: Host, sessions: Sessions, fuse: None) -> None:
    session = sessions.open(sessions.store("Notes"))
    mount(host, session)
    # Another run directory is another daemon.
    other = {"MEMSTORE_RUN_DIR": str(host.directory / "run2")}
    same_root = host.memstore("mount", "--session", session, "--root", host.root, environment=other, check=False)
    assert same_root.returncode == 2
    assert f"{host.root}/notes is mounted by another daemon" in same_root.stderr
    wait_for("the end of the other daemon", lambda: not (host.directory / "run2/daemon.sock").exists())
    assert len(host.status()["stores"]) == 1


def test_a_stranger_in_the_way_of_a_store_is_not_hidden(host: Host, sessions: Sessions, mode: str) -> None:
    session = sessions.open(sessions.store("Notes"))
    host.root.mkdir()
    (host.root / "other.txt").write_text("mine")
    (host.root / "notes").write_text("a file")
    refused = host.memstore("mount", "--session", session, "--root", host.root, "--mode", mode, check=False)
    assert refused.returncode == 2
    assert f"{host.root}/notes is not a directory" in refused.stderr
    (host.root / "notes").unlink()
    mount(host, session, mode)
    assert (host.root / "other.txt").read_text() == "mine"
    assert (host.root / "notes").is_dir()
    assert [root["root_read_only"] for root in host.status()["roots"]] == [False]
    host.memstore("unmount", "--root", host.root)
    assert sorted(path.name for path in host.root.iterdir()) == ["other.txt"]


def test_sigterm_saves_and_unmounts_everything(host: Host, sessions: Sessions, mode: str) -> None:
    notes = sessions.store("Notes")
    mount(host, sessions.open(notes), mode)
    (host.root / "notes/plan.md").write_text("buy milk\n")
    known = host.status()
    os.kill(known["supervisor_pid"], signal.SIGTERM)
    wait_for("the end of the daemon", lambda: not is_running(known["supervisor_pid"]))
    assert host.mounted() == []
    assert sessions.texts(notes) == {"/plan.md": "buy milk\n"}
    assert not is_running(known["pid"])


def test_the_daemon_ends_with_its_last_mount(host: Host, sessions: Sessions, mode: str) -> None:
    session = sessions.open(sessions.store("Notes"))
    mount(host, session, mode)
    mount(host, session, mode, host.directory / "second")
    known = host.status()
    host.memstore("unmount", "--root", host.root)
    assert host.status()["pid"] == known["pid"]
    host.memstore("unmount", "--root", host.directory / "second")
    wait_for("the end of the daemon", lambda: not is_running(known["supervisor_pid"]))
    assert not host.places.socket.exists()
    mount(host, session, mode)
    assert host.status()["pid"] != known["pid"]


@repeats
def test_mounting_and_unmounting_at_once_never_strands_a_command(host: Host, sessions: Sessions, mode: str) -> None:
    """The daemon ends when nothing is mounted; a mount that comes just then must find or start another."""
    session = sessions.open(sessions.store("Notes"))
    for _ in range(amount(2, 20)):
        mount(host, session, mode)
        leaving = host.start("unmount", "--root", host.root)
        coming = host.start("mount", "--session", session, "--root", host.directory / "second", "--mode", mode)
        for command in (leaving, coming):
            _, said = command.communicate(timeout=60)
            assert command.returncode == 0, said
        host.memstore("unmount", "--root", host.directory / "second")


def test_a_command_that_meets_an_ending_daemon_asks_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Client:
        def call(self, command: str, **members: object) -> dict[str, object]:
            asked.append(command)
            if len(asked) == 1:
                raise Disconnected("the daemon ended before it answered")
            return members

        def close(self) -> None:
            pass

    monkeypatch.setattr(daemon, "connect_or_start", lambda places, output: Client())
    places = Places(tmp_path, tmp_path, tmp_path)
    assert daemon.call(places, "mount", root="/r")[1] == {"root": "/r"}
    assert asked == ["mount", "mount"]


def test_a_command_in_its_own_namespace_survives_a_crash_of_the_worker(
    host: Host, sessions: Sessions, fuse: None
) -> None:
    notes = sessions.store("Notes")
    session = sessions.open(notes)
    script = "echo ready; read go; echo later > /mnt/memory/notes/later.md; cat /mnt/memory/notes/later.md"
    command = subprocess.Popen(
        [MEMSTORE, "run", "--session", session, "--", "sh", "-c", script],
        env=host.environment, cwd=host.work, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with command:
        assert command.stdout is not None
        assert command.stdout.readline() == "ready\n"
        host.kill_worker()
        said, _ = command.communicate("go\n", timeout=60)
    assert (said, command.returncode) == ("later\n", 0)
    assert sessions.texts(notes) == {"/later.md": "later\n"}
    wait_for("the end of the daemon", lambda: not host.places.socket.exists())


def test_an_attachment_ends_with_its_process_also_after_a_crash(host: Host, sessions: Sessions, fuse: None) -> None:
    inside = host.directory / "memory"
    inside.mkdir()
    with subprocess.Popen(
        ["unshare", "-Urm", "sh", "-c", "echo ready; read go"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as sandbox:
        assert sandbox.stdout is not None
        assert sandbox.stdout.readline() == "ready\n"
        session = sessions.open(sessions.store("Notes"))
        host.memstore("attach", "--session", session, "--pid", str(sandbox.pid), "--root", inside)
        host.kill_worker()
        wait_for("the next worker", lambda: len(host.status()["stores"]) == 1)
        with contextlib.suppress(BrokenPipeError):
            sandbox.communicate("go\n", timeout=60)
    wait_for("the end of the daemon", lambda: not host.places.socket.exists())
