"""`memstore mount` and its kin as a person uses them: real commands, a real daemon, a real server."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import app
from app.cli import mount_settings
from tests.mount.fuse_mounts import missing_for_fuse
from tests.mount.hosts import Host, Sessions, host_of, is_running, wait_for
from tests.support.backends import SQLITE_DISK, Backend, Services
from tests.support.servers import Server, serve

FUSE, MIRROR = "fuse", "mirror"
NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]


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
    """The server, which the test may stop or kill; it runs again afterwards."""
    yield server
    if server.daemon not in server.daemon.running:
        server.start()


def test_a_session_finds_its_stores_as_directories(host: Host, sessions: Sessions, mode: str) -> None:
    notes, reference = sessions.store("Notes", plan="buy milk\n"), sessions.store("Reference", law="do not\n")
    session = sessions.open(notes, read_only=(reference,))

    printed = host.memstore("mount", "--session", session, "--root", host.root, "--mode", mode).stdout

    assert printed.splitlines() == [
        f"{host.root}/notes  {notes}  {mode}",
        f"{host.root}/reference  {reference}  {mode}, read-only",
    ]
    assert (host.root / "notes/plan.md").read_text() == "buy milk\n"
    (host.root / "notes/done.md").write_text("bought\n")
    host.memstore("flush", "--root", host.root)
    assert sessions.texts(notes) == {"/plan.md": "buy milk\n", "/done.md": "bought\n"}
    assert sessions.history(notes, "/done.md") == [("created", "session_actor")]
    host.memstore("unmount", "--root", host.root)
    assert host.mounted() == []
    assert not list(host.root.glob("*/*"))


def test_a_read_only_store_and_the_root_refuse_writes(host: Host, sessions: Sessions, fuse: None) -> None:
    notes, reference = sessions.store("Notes"), sessions.store("Reference", law="do not\n")
    host.memstore("mount", "--session", sessions.open(notes, read_only=(reference,)), "--root", host.root)
    for path in (host.root / "reference/law.md", host.root / "reference/new.md", host.root / "stray.md"):
        with pytest.raises(OSError, match="Read-only file system"):
            path.write_text("x")
    assert sessions.texts(reference) == {"/law.md": "do not\n"}


def test_mounting_what_is_mounted_succeeds_and_changes_nothing(host: Host, sessions: Sessions, mode: str) -> None:
    order = ("mount", "--session", sessions.open(sessions.store("Notes")), "--root", host.root, "--mode", mode)
    first = host.memstore(*order).stdout
    before, mounts = host.status(), host.mounted()
    assert host.memstore(*order).stdout == first
    assert (host.status()["pid"], host.mounted()) == (before["pid"], mounts)


def test_a_root_is_one_sessions(host: Host, sessions: Sessions, mode: str) -> None:
    one, other = sessions.open(sessions.store("Notes")), sessions.open(sessions.store("Notes"))
    host.memstore("mount", "--session", one, "--root", host.root, "--mode", mode)
    refused = host.memstore("mount", "--session", other, "--root", host.root, "--mode", mode, check=False)
    assert refused.returncode == 2
    assert f"{host.root} shows the session {one}" in refused.stderr


def test_commands_that_start_the_daemon_at_once_start_one(host: Host, sessions: Sessions, mode: str) -> None:
    session = sessions.open(sessions.store("Notes", a="a"))
    roots = [host.directory / f"root{number}" for number in range(4)]
    host.places.run.mkdir(mode=0o700)
    with host.places.start_lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        commands = [host.start("mount", "--session", session, "--root", root, "--mode", mode) for root in roots]
        wait_for("all to be about to start it", lambda: waiting_for(lock.fileno()) == len(roots))
        assert not host.places.socket.exists()
    for command in commands:
        _, said = command.communicate(timeout=60)
        assert command.returncode == 0, said
    assert {entry["root"] for entry in host.status()["stores"]} == {str(root) for root in roots}
    assert host.log().count("Traceback") == 0
    daemons = [line for line in running() if str(host.places.run) in line and "supervise" not in line]
    assert len(daemons) == 1, daemons


def test_two_sessions_on_one_host_share_a_store(host: Host, sessions: Sessions, mode: str) -> None:
    shared = sessions.store("Notes")
    one, other = host.directory / "one", host.directory / "other"
    host.memstore("mount", "--session", sessions.open(shared), "--root", one, "--mode", mode)
    host.memstore("mount", "--session", sessions.open(shared), "--root", other, "--mode", mode)
    (one / "notes/found.md").write_text("a key\n")
    host.memstore("flush", "--root", one)
    wait_for("the other session's view", lambda: (other / "notes/found.md").exists())
    assert (other / "notes/found.md").read_text() == "a key\n"


def test_a_store_can_be_mounted_without_a_session(host: Host, sessions: Sessions, mode: str) -> None:
    notes, more = sessions.store("Notes", plan="buy milk\n"), sessions.store("More")
    host.memstore("mount", "--store", notes, "--read-only", "--root", host.root, "--mode", mode)
    host.memstore("mount", "--store", more, "--root", host.root, "--mode", mode)  # into the same root
    assert (host.root / "notes/plan.md").read_text() == "buy milk\n"
    (host.root / "more/new.md").write_text("x")
    host.memstore("flush")
    assert sessions.history(more, "/new.md") == [("created", "api_actor")]
    assert [(entry["read_only"], entry["session_id"]) for entry in host.status()["stores"]] == [
        (True, None),
        (False, None),
    ]


def test_a_sessions_token_is_enough(host: Host, sessions: Sessions, server: Server, mode: str) -> None:
    notes = sessions.store("Notes", plan="buy milk\n")
    session = sessions.open(notes)
    with server.http() as http:
        token = http.post(f"/v1/sessions/{session}/tokens", json={}).json()["token"]
    order = ("mount", "--session", session, "--root", host.root, "--mode", mode)
    host.memstore(*order, environment={"MEMSTORE_API_KEY": None, "MEMSTORE_TOKEN": token})
    (host.root / "notes/plan.md").write_text("bought\n")
    host.memstore("flush")
    assert sessions.history(notes, "/plan.md") == [("created", "api_actor"), ("modified", "session_actor")]


def test_settings_may_stand_in_the_env_file(host: Host, sessions: Sessions, server: Server, mode: str) -> None:
    (host.work / ".env").write_text(f"MEMSTORE_BASE_URL={server.base_url}\nMEMSTORE_API_KEY='{server.api_key}'\n")
    order = ("mount", "--session", sessions.open(sessions.store("Notes")), "--root", host.root, "--mode", mode)
    host.memstore(*order, environment={"MEMSTORE_BASE_URL": None, "MEMSTORE_API_KEY": None})
    assert (host.root / "notes").is_dir()


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"MEMSTORE_BASE_URL": None}, "MEMSTORE_BASE_URL is not set"),
        ({"MEMSTORE_BASE_URL": "ftp://x"}, "MEMSTORE_BASE_URL must be an http or https URL"),
        ({"MEMSTORE_API_KEY": None}, "neither MEMSTORE_API_KEY nor MEMSTORE_TOKEN is set"),
        ({"MEMSTORE_API_KEY": "wrong"}, "does not accept MEMSTORE_API_KEY"),
        ({"MEMSTORE_BASE_URL": "http://127.0.0.1:9"}, "http://127.0.0.1:9 does not answer"),
        ({"MEMSTORE_RUN_DIR": "/tmp"}, "/tmp must be a directory of user"),
        ({"MEMSTORE_RUN_DIR": "/" + "long/" * 30}, "too long for a Unix socket"),
    ],
)
def test_what_is_missing_is_said(host: Host, changed: dict[str, str | None], sentence: str) -> None:
    order = ("mount", "--session", "sesn_011CZkZAtmR3yMPDzynEDxu7", "--root", host.root)
    refused = host.memstore(*order, environment=changed, check=False)
    assert refused.returncode == 2
    assert sentence in refused.stderr
    assert "Traceback" not in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_every_setting_is_in_the_page() -> None:
    page = (Path(app.__file__).parents[1] / "docs/mount.md").read_text()
    assert [name for name in mount_settings.VARIABLES if f"| `{name}` |" not in page] == []


def test_an_unknown_session_is_said(host: Host) -> None:
    refused = host.memstore("mount", "--session", "sesn_011CZkZAtmR3yMPDzynEDxu7", "--root", host.root, check=False)
    assert refused.returncode == 2
    assert "has no session sesn_011CZkZAtmR3yMPDzynEDxu7" in refused.stderr


def test_flush_is_a_barrier(host: Host, sessions: Sessions, away: Server, mode: str) -> None:
    notes = sessions.store("Notes")
    host.memstore("mount", "--session", sessions.open(notes), "--root", host.root, "--mode", mode)
    away.kill()
    (host.root / "notes/late.md").write_text("kept\n")
    missed = host.memstore("flush", "--root", host.root, "--timeout", "0.5", check=False)
    assert missed.returncode == 1
    assert f"{host.root}/notes/late.md" in missed.stderr
    away.start()
    host.memstore("flush", "--root", host.root)
    assert sessions.texts(notes) == {"/late.md": "kept\n"}


def test_unmount_says_what_it_could_not_save_and_keeps_it(
    host: Host, sessions: Sessions, away: Server, mode: str
) -> None:
    notes = sessions.store("Notes")
    session = sessions.open(notes)
    host.memstore("mount", "--session", session, "--root", host.root, "--mode", mode)
    away.kill()
    (host.root / "notes/late.md").write_text("kept\n")

    left = host.memstore("unmount", "--root", host.root, "--timeout", "0.5", check=False)

    assert left.returncode == 1
    assert f"{host.root}/notes/late.md" in left.stderr
    journal = left.stderr.partition("journal in ")[2].split(")")[0]
    assert Path(journal).is_dir()
    assert host.mounted() == []
    away.start()
    host.memstore("mount", "--session", session, "--root", host.root, "--mode", mode)
    host.memstore("flush")
    assert sessions.texts(notes) == {"/late.md": "kept\n"}
    assert sessions.history(notes, "/late.md") == [("created", "session_actor")]


def test_what_one_root_left_is_saved_by_a_mount_at_another(
    host: Host, sessions: Sessions, away: Server, fuse: None
) -> None:
    notes = sessions.store("Notes")
    session = sessions.open(notes)
    host.memstore("mount", "--session", session, "--root", host.root)
    away.kill()
    (host.root / "notes/late.md").write_text("kept\n")
    assert host.memstore("unmount", "--root", host.root, "--timeout", "0.2", check=False).returncode == 1
    away.start()
    host.memstore("mount", "--session", session, "--root", host.directory / "elsewhere")
    assert sessions.texts(notes) == {"/late.md": "kept\n"}
    assert sessions.history(notes, "/late.md") == [("created", "session_actor")]


def test_status_tells_how_each_store_is(host: Host, sessions: Sessions, away: Server, mode: str) -> None:
    notes = sessions.store("Notes", plan="buy milk\n")
    session = sessions.open(notes)
    host.memstore("mount", "--session", session, "--root", host.root, "--mode", mode)
    (host.root / "notes/binary.md").write_bytes(b"text\n")
    host.memstore("flush")

    known = json.loads(host.memstore("status", "--root", host.root, "--json").stdout)

    assert is_running(known["pid"])
    assert is_running(known["supervisor_pid"])
    (entry,) = known["stores"]
    expected = {
        "path": f"{host.root}/notes", "root": str(host.root), "session_id": session, "memory_store_id": notes,
        "mode": mode, "read_only": False, "connected": True, "feed": "live", "memories": 2, "pending": [],
        "conflicts": [], "refused": [], "unshowable": [],
    }  # fmt: skip
    assert {name: entry[name] for name in expected} == expected
    assert entry["last_sync"] is not None

    away.kill()
    (host.root / "notes/late.md").write_text("kept\n")
    wait_for("the outage in the status", lambda: not host.store("notes")["connected"])
    wait_for("the write in the status", lambda: host.store("notes")["pending"] == ["/late.md"])
    assert "NOT CONNECTED" in host.memstore("status").stdout


def test_status_without_a_mount(host: Host) -> None:
    said = host.memstore("status", "--json", check=False)
    assert said.returncode == 1
    assert json.loads(said.stdout)["stores"] == []
    for command in ("unmount", "flush"):
        refused = host.memstore(command, check=False)
        assert (refused.returncode, refused.stderr) == (2, "memstore: nothing is mounted\n")


def test_a_store_in_use_is_not_pulled_away(host: Host, sessions: Sessions, fuse: None) -> None:
    notes = sessions.store("Notes")
    host.memstore("mount", "--session", sessions.open(notes), "--root", host.root)
    with subprocess.Popen(["cat"], cwd=host.root / "notes", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as user:
        refused = host.memstore("unmount", "--root", host.root, check=False)
        assert refused.returncode == 2
        assert f"{host.root}/notes is in use by {user.pid} (cat)" in refused.stderr
        (host.root / "notes/still.md").write_text("here\n")
        host.memstore("unmount", "--root", host.root, "--force")
        user.communicate()
    assert host.mounted() == []
    assert sessions.texts(notes) == {"/still.md": "here\n"}


def test_the_key_is_nowhere_but_in_memory(host: Host, sessions: Sessions, server: Server, mode: str) -> None:
    secret = server.api_key
    host.memstore("mount", "--session", sessions.open(sessions.store("Notes")), "--root", host.root, "--mode", mode)
    known = host.status()
    for pid in (known["pid"], known["supervisor_pid"]):
        for file in ("cmdline", "environ"):
            assert secret.encode() not in Path(f"/proc/{pid}/{file}").read_bytes()
    written = [path for path in host.directory.rglob("*") if path.is_file()]
    assert written
    assert [path for path in written if secret.encode() in path.read_bytes()] == []


def test_run_gives_a_command_the_stores_and_takes_its_status(host: Host, sessions: Sessions, fuse: None) -> None:
    notes, reference = sessions.store("Notes"), sessions.store("Reference", law="do not\n")
    session = sessions.open(notes, read_only=(reference,))
    script = (
        "cat /mnt/memory/reference/law.md; echo bought > /mnt/memory/notes/plan.md;"
        "echo x > /mnt/memory/reference/x && echo LEAK; env | grep MEMSTORE_; exit 7"
    )
    done = host.memstore("run", "--session", session, "--", "sh", "-c", script, check=False)
    assert (done.returncode, done.stdout) == (7, "do not\n")
    assert "Read-only file system" in done.stderr
    assert sessions.texts(notes) == {"/plan.md": "bought\n"}
    assert sessions.history(notes, "/plan.md") == [("created", "session_actor")]
    assert not Path("/mnt/memory/notes").exists()
    wait_for("the end of the daemon", lambda: not host.places.socket.exists())
    assert not list(host.places.state.rglob("journal"))  # nothing is left of a command that ended well


def test_the_command_can_not_read_the_key_from_its_parents(
    host: Host, sessions: Sessions, server: Server, fuse: None
) -> None:
    script = (
        "import os, pathlib\n"
        "for pid in filter(str.isdigit, os.listdir('/proc')):\n"
        "    for file in ('environ', 'cmdline'):\n"
        "        try:\n"
        "            found = pathlib.Path('/proc', pid, file).read_bytes()\n"
        "        except OSError:\n"
        "            continue\n"
        f"        if {server.api_key[:5].encode()!r} + {server.api_key[5:].encode()!r} in found:\n"
        "            print(pid, file, pathlib.Path('/proc', pid, 'cmdline').read_bytes())\n"
    )
    (host.work / "look.py").write_text(script)
    session = sessions.open(sessions.store("Notes"))
    looked = host.memstore("run", "--session", session, "--", sys.executable, "look.py")
    # The server of this test, started with the key in its environment, is no part of the mount.
    others = [line for line in looked.stdout.splitlines() if b"serve" not in line.encode()]
    assert others == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_an_ordinary_users_daemon_hides_what_it_knows(host: Host, sessions: Sessions, tmp_path: Path) -> None:
    """Without root there is the mirror, and the agent may well be the same user as the daemon."""
    notes = sessions.store("Notes", plan="buy milk\n")
    for directory in (host.directory, host.work):
        directory.chmod(0o777)
    memstore = [python_for_all(host.directory / "venv"), "-c", "from app.cli.main import main; main()"]
    order = [*NOBODY, *memstore, "mount", "--session", sessions.open(notes), "--root", str(host.root)]
    mounted = subprocess.run(order, env=host.environment, cwd=host.work, capture_output=True, text=True, check=False)
    assert mounted.returncode == 0, (mounted.stderr, host.log())
    assert "mirror" in mounted.stdout
    assert (host.root / "notes/plan.md").read_text() == "buy milk\n"
    known = host.status()
    for pid in (known["pid"], known["supervisor_pid"]):
        assert Path(f"/proc/{pid}/status").read_text().partition("Uid:\t")[2].startswith("65534")
        for file in ("environ", "mem", "maps"):
            read = subprocess.run([*NOBODY, "head", "-c1", f"/proc/{pid}/{file}"], capture_output=True, check=False)
            assert b"Permission denied" in read.stderr, (file, read)
    host.memstore("unmount", "--root", host.root)


def test_attach_gives_stores_to_a_sandbox_that_runs(host: Host, sessions: Sessions, fuse: None) -> None:
    notes = sessions.store("Notes", plan="buy milk\n")
    inside = host.directory / "memory"  # a root that exists: the sandbox sees this host's files
    inside.mkdir()
    sandbox = subprocess.Popen(
        ["unshare", "-Urm", "sh", "-c", "echo ready; while read line; do eval \"$line\"; echo \"rc $?\"; done"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip
    assert sandbox.stdin is not None
    assert sandbox.stdout is not None
    with sandbox:
        assert sandbox.stdout.readline() == "ready\n"
        host.memstore("attach", "--session", sessions.open(notes), "--pid", str(sandbox.pid), "--root", inside)
        sandbox.stdin.write(f"cat {inside}/notes/plan.md; echo mine > {inside}/notes/mine.md\n")
        assert [sandbox.stdout.readline() for _ in range(2)] == ["buy milk\n", "rc 0\n"]
        assert not list(inside.iterdir())  # on the host
        assert host.store("notes")["path"] == f"{inside}/notes"
        host.memstore("flush")
        assert sessions.texts(notes) == {"/plan.md": "buy milk\n", "/mine.md": "mine\n"}
        sandbox.stdin.close()
    wait_for("the end of what was attached", lambda: not host.places.socket.exists())


def test_in_the_foreground_a_mount_ends_with_its_command(host: Host, sessions: Sessions, mode: str) -> None:
    notes = sessions.store("Notes")
    order = ("mount", "--session", sessions.open(notes), "--root", host.root, "--mode", mode, "--foreground")
    with host.start(*order) as command:
        assert command.stdout is not None
        assert command.stdout.readline().startswith(f"{host.root}/notes")
        (host.root / "notes/plan.md").write_text("buy milk\n")
        command.send_signal(signal.SIGTERM)
        _, said = command.communicate(timeout=60)
        assert command.returncode == 0, said
    assert sessions.texts(notes) == {"/plan.md": "buy milk\n"}
    assert host.mounted() == []


def test_a_foreground_command_that_is_killed_leaves_nothing(host: Host, sessions: Sessions, mode: str) -> None:
    notes = sessions.store("Notes")
    order = ("mount", "--session", sessions.open(notes), "--root", host.root, "--mode", mode, "--foreground")
    with host.start(*order) as command:
        assert command.stdout is not None
        assert command.stdout.readline().startswith(f"{host.root}/notes")
        (host.root / "notes/plan.md").write_text("buy milk\n")
        command.kill()
        wait_for("the end of the daemon", lambda: not host.places.socket.exists())
        command.communicate()
    wait_for("the end of the mounts", lambda: not host.mounted())
    assert sessions.texts(notes) == {"/plan.md": "buy milk\n"}


def test_the_servers_commands_load_nothing_of_the_mount_nor_the_mounts_of_the_server() -> None:
    script = (
        "import sys; from app.cli.main import app; import typer; c = typer.main.get_command(app).commands;"
        "c['{command}']; print(sorted(n for n in sys.modules if n.startswith(('app.mount', 'app.storage', 'fastapi'))))"
    )

    def loaded(command: str) -> str:
        code = script.format(command=command)
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert "app.mount" not in loaded("serve")
    assert loaded("mount").strip() == "[]"


def python_for_all(environment: Path) -> str:
    """This project in an interpreter of this version that every user may run; skips the test if there is none."""
    base = getattr(sys, "_base_executable", sys.executable)
    for candidate in (base, f"/usr/bin/python3.{sys.version_info.minor}"):
        if subprocess.run([*NOBODY, "test", "-x", os.path.realpath(candidate)], check=False).returncode:
            continue
        subprocess.run([candidate, "-m", "venv", "--without-pip", str(environment)], check=True)
        (packages,) = environment.glob("lib/*/site-packages")
        known = [path for path in sys.path if path.endswith("site-packages")]
        (packages / "all.pth").write_text("\n".join([*known, str(Path(app.__file__).parents[1])]))
        return str(environment / "bin/python")
    pytest.skip("each Python of this version lies in a directory that is closed to other users")


def waiting_for(lock: int) -> int:
    """How many processes wait for a file's lock."""
    inode = os.fstat(lock).st_ino
    lines = Path("/proc/locks").read_text().splitlines()
    return sum("->" in line and f":{inode} " in line for line in lines)


def running() -> list[str]:
    """The command lines of all processes."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                found.append(Path(entry.path, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue
    return found


def test_a_text_that_close_could_not_save_is_kept_and_named_until_somebody_takes_it(
    host: Host, sessions: Sessions, fuse: None
) -> None:
    notes = sessions.store("Notes", h="caf\n")
    session = sessions.open(notes)
    host.memstore("mount", "--session", session, "--root", host.root)
    subprocess.run(["bash", "-c", r"printf 'long text caf\xc3' > h.md"], cwd=host.root / "notes", check=True)
    wait_for("the refusal", lambda: bool(host.store("notes")["kept"]))
    (kept,) = host.store("notes")["kept"]

    left = host.memstore("unmount", "--root", host.root, check=False)

    assert left.returncode == 1
    assert f"{host.root}/notes/h.md" in left.stderr
    assert kept["place"] in left.stderr
    assert Path(kept["place"]).read_bytes() == b"long text caf\xc3"
    which = f"{notes}/{kept['id']}"
    for command in ("status", "doctor"):
        assert "1 text that could not be saved is kept" in host.memstore(command, check=False).stdout
    assert which in host.memstore("kept", "list").stdout
    again = host.memstore("mount", "--session", session, "--root", host.root)
    assert "1 text that could not be saved is kept" in again.stderr
    assert sessions.texts(notes) == {"/h.md": "caf\n"}
    assert host.memstore("unmount", "--root", host.root).returncode == 0

    host.memstore("kept", "take", which, host.work / "rescued")

    assert (host.work / "rescued").read_bytes() == b"long text caf\xc3"
    assert host.memstore("kept", "list").stdout == "nothing is kept\n"
    assert host.memstore("kept", "discard", which, check=False).returncode == 2


def test_a_file_that_a_mirror_could_not_save_stays_where_it_is_and_is_named(host: Host, sessions: Sessions) -> None:
    notes = sessions.store("Notes", plan="buy milk\n")
    host.memstore("mount", "--session", sessions.open(notes), "--root", host.root, "--mode", MIRROR)
    files = {"image.png": b"\x89PNG", "large.md": b"x" * 102_401}
    for name, data in files.items():
        (host.root / "notes" / name).write_bytes(data)
    wait_for("the refusals", lambda: len(host.store("notes")["refused"]) == len(files))

    left = host.memstore("unmount", "--root", host.root, check=False)

    assert left.returncode == 1
    assert "stays where it is" in left.stderr
    for name, data in files.items():
        assert f"{host.root}/notes/{name}" in left.stderr
        assert (host.root / "notes" / name).read_bytes() == data
    assert not (host.root / "notes/plan.md").exists()


def test_other_users_of_the_host_see_nothing_of_a_mount(host: Host, sessions: Sessions, fuse: None) -> None:
    host.memstore("mount", "--session", sessions.open(sessions.store("Private")), "--mode", "fuse", "--root", host.root)
    store = next(Path(entry["path"]) for entry in host.status()["stores"])
    (store / "a.md").write_text("secret\n")
    host.directory.chmod(0o755)
    assert subprocess.run([*NOBODY, "ls", store.parent], check=False, capture_output=True).returncode == 0
    for command in ("cat {}/a.md", "echo x > {}/a.md", "echo x > {}/new.md", "rm -f {}/a.md", "ls {}"):
        done = subprocess.run([*NOBODY, "sh", "-c", command.format(store)], check=False, capture_output=True)
        assert done.returncode != 0, command
    assert [path.read_text() for path in store.iterdir()] == ["secret\n"]
    store.chmod(0o755)  # its owner opens it, for reading
    assert subprocess.run([*NOBODY, "cat", store / "a.md"], check=True, capture_output=True).stdout == b"secret\n"
    done = subprocess.run([*NOBODY, "rm", "-f", store / "a.md"], check=False, capture_output=True)
    assert done.returncode != 0


def test_a_mount_that_is_opened_to_others_says_so_and_serves_another_user(
    host: Host, sessions: Sessions, fuse: None
) -> None:
    notes, law = sessions.store("Notes", plan="buy milk\n"), sessions.store("Law", law="do not\n")
    session = sessions.open(notes, read_only=(law,))
    order = ("mount", "--session", session, "--root", host.root, "--allow-other")
    said = host.memstore(*order)
    assert f"every user of this host can read and change the stores below {host.root}" in said.stderr
    assert "open to all users" in said.stdout
    host.directory.chmod(0o755)
    commands = "cat plan.md; echo x > new.md; echo y >> new.md; mkdir d; mv new.md d"
    subprocess.run([*NOBODY, "sh", "-ec", commands], cwd=host.root / "notes", check=True, capture_output=True)
    done = subprocess.run([*NOBODY, "sh", "-c", "echo x > law/law.md"], cwd=host.root, check=False, capture_output=True)
    assert b"Read-only file system" in done.stderr
    host.kill_worker()
    wait_for("the next worker", lambda: host.status()["restarts"] == 1)
    subprocess.run([*NOBODY, "sh", "-ec", "echo z >> notes/d/new.md"], cwd=host.root, check=True, capture_output=True)
    host.memstore("flush")
    assert sessions.texts(notes) == {"/plan.md": "buy milk\n", "/d/new.md": "x\ny\nz\n"}
    assert [entry["allow_other"] for entry in host.status()["stores"]] == [True, True]
    closed = host.memstore(*order[:-1], check=False)
    assert closed.returncode == 2
    assert "is mounted with --allow-other: unmount it first" in closed.stderr


def test_a_mirror_is_not_opened_to_others_without_a_word(host: Host, sessions: Sessions) -> None:
    order = ("mount", "--session", sessions.open(sessions.store("Notes")), "--root", host.root, "--mode", "mirror")
    refused = host.memstore(*order, "--allow-other", check=False)
    assert refused.returncode == 2
    assert "open it with chmod" in refused.stderr
    assert not host.root.exists()


def test_a_cache_directory_of_others_is_refused(host: Host, sessions: Sessions, tmp_path: Path) -> None:
    session = sessions.open(sessions.store("Notes"))
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("open", "link"):
        arguments = ("mount", "--session", session, "--root", host.root, "--cache-dir", tmp_path / name)
        done = host.memstore(*arguments, check=False)
        assert done.returncode != 0
        assert "must be a directory of user" in done.stderr
