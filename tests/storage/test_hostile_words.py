"""Whatever people, servers and archives wrote: no command hands a terminal what it would obey."""

import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from app.cli import main, terminal
from tests.support.backends import Backend, Services
from tests.support.servers import run_cli, serve
from tests.unit.test_terminal import HOSTILE, obeyed

STORE, MEMORY, VERSION, KEY, SESSION = "{store}", "{memory}", "{version}", "{key}", "{session}"
PATH = f"/{HOSTILE}.md"
LONG = HOSTILE + "\0" + "x" * 10_000

CALLS: dict[tuple[str, ...], list[list[str]]] = {
    ("serve",): [["--host", HOSTILE]],
    ("migrate",): [[]],
    ("doctor",): [[]],
    ("keys", "create"): [["--workspace", "default", "--name", HOSTILE], ["--workspace", HOSTILE]],
    ("keys", "list"): [[], ["--json"]],
    ("keys", "revoke"): [[KEY], [HOSTILE]],
    ("stores", "list"): [[], ["--all", "--json"]],
    ("stores", "create"): [["Notes", "--description", HOSTILE, "--metadata", "a=\x1b"], [HOSTILE]],
    ("stores", "show"): [[STORE], [STORE, "--json"], [HOSTILE]],
    ("ls",): [[STORE], [STORE, "--recursive", "--long"], [STORE, "--recursive", "--json"], [STORE, HOSTILE], [HOSTILE]],
    ("show",): [[STORE, PATH], [STORE, PATH, "--json"], [STORE, HOSTILE]],
    ("export",): [
        [STORE, "--output", "{new}"], [STORE, "--output", "{new}.d", "--git"], [STORE, "--output", "{new}", "--json"],
        ["--where", f"a={HOSTILE}", "--output", "{new}"], [HOSTILE, "--output", "{new}"],
    ],
    ("import",): [["{archive}"], ["{archive}", "--json"], ["{archive}", "--into", HOSTILE], [HOSTILE]],
    ("pull",): [[STORE, "--from", "{hostile}"], [STORE, "--from", HOSTILE], [STORE, "--from", "{url}"]],
    ("log",): [[STORE], [STORE, PATH], [STORE, "--json"], [STORE, "--ids"], [STORE, "--author", HOSTILE]],
    ("diff",): [[STORE, PATH], [STORE, PATH, "--json"], [STORE, HOSTILE]],
    ("blame",): [[STORE, PATH], [STORE, PATH, "--json"], [STORE, PATH, "--ids"], [STORE, HOSTILE]],
    ("restore",): [[STORE, PATH, "--version", VERSION], [STORE, "--seq", "1", "--dry-run"], [STORE, HOSTILE]],
    ("forget", "verify"): [["{archive}"], [HOSTILE], ["{archive}", "--contains", HOSTILE]],
    ("forget", "report"): [[], [HOSTILE]],
    ("forget",): [["--store", STORE], ["--contains", "words"], ["--author", HOSTILE]],
    ("hold",): [[STORE, "--reason", HOSTILE], [STORE], [STORE, "--release"], [HOSTILE]],
    ("audit", "list"): [[], ["--json"], ["--ids"], ["--actor", HOSTILE]],
    ("audit", "export"): [["--output", "{new}"], ["--output", f"/no/{HOSTILE}"]],
    ("audit", "verify"): [[], ["--expect", HOSTILE]],
    ("sessions", "create"): [["--store", STORE, "--title", HOSTILE], ["--store", HOSTILE]],
    ("sessions", "show"): [[SESSION], [SESSION, "--json"], [HOSTILE]],
    ("sessions", "token"): [[SESSION], [HOSTILE]],
    ("sessions", "list"): [[], ["--json"]],
    ("mount",): [["--store", STORE, "--root", "{new}"], ["--session", HOSTILE, "--root", "{new}"]],
    ("run",): [["--store", STORE, "--", "true"], ["--session", HOSTILE, "--", "true"]],
    ("attach",): [["--pid", "1", "--store", HOSTILE]],
    ("status",): [[], ["--json"], ["--root", HOSTILE]],
    ("flush",): [["--root", HOSTILE]],
    ("unmount",): [["--root", HOSTILE]],
    ("kept", "list"): [[], ["--json"]],
    ("kept", "show"): [[HOSTILE]],
    ("kept", "take"): [[HOSTILE, HOSTILE]],
    ("kept", "discard"): [[HOSTILE]],
    ("jobs", "list"): [[], ["--json"], ["--state", HOSTILE]],
    ("jobs", "retry"): [[HOSTILE]],
    ("jobs", "discard"): [[HOSTILE]],
    ("backup",): [["--output", "{new}"], ["--output", f"/no/{HOSTILE}"]],
    ("restore-backup",): [["{archive}"], [HOSTILE]],
    ("fsck",): [[], ["--json"]],
    ("sweep",): [[]],
}  # fmt: skip
"""How each command is called, with what it finds and with what it can't."""
AT_A_HOSTILE_SERVER = [
    ("stores", "list"), ("stores", "create"), ("stores", "show"), ("ls",), ("show",), ("log",), ("diff",), ("blame",),
    ("mount",), ("run",), ("sessions", "list"), ("sessions", "show"), ("pull",),
]  # fmt: skip


def commands(found: Any, name: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The commands of a group, or the one that it is; a group that does something by itself is one as well."""
    below = getattr(found, "commands", {})
    if not below or getattr(found, "invoke_without_command", False):
        yield name
    for each, command in below.items():
        yield from commands(command, (*name, each))


def test_every_command_is_called() -> None:
    names = [name for homes in main.HOMES.values() for name in homes]
    assert {found for name in names for found in commands(main.load(name), (name,))} == CALLS.keys()


class _Hostile(BaseHTTPRequestHandler):
    """Answers everything with words of its own, in each way in which an API can say something."""

    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        error = {"type": f"invalid_request_error{HOSTILE}", "message": HOSTILE}
        body = json.dumps({"type": "error", "error": error, "request_id": HOSTILE}).encode()
        status = 400
        if "list" in self.path or self.path.startswith("/v1/memory_stores?"):
            status, body = 200, json.dumps({"data": [{"id": HOSTILE, "name": HOSTILE}], "next_page": HOSTILE}).encode()
        self.wfile.write(
            b"HTTP/1.1 %d \x1b[31mBad\x9b\r\nrequest-id: \x1b]0;x\x07\r\ncontent-length: %d\r\n\r\n%b"
            % (status, len(body), body)
        )
        self.close_connection = True

    do_GET = do_POST = do_DELETE = do_HEAD = _answer  # noqa: N815 - the names that http.server looks for

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def hostile() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hostile)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory, services: Services, hostile: str) -> Iterator[dict[str, str]]:
    """A deployment in which every word that somebody else chose is hostile; what the calls are filled in with."""
    place = tmp_path_factory.mktemp("hostile")
    environment = Backend("sqlite-disk", services).environment(place / "made")
    with serve(environment) as server, server.client() as client:
        stores = client.beta.memory_stores
        store = stores.create(name="Notes", description=HOSTILE, metadata={"k\x1b[31m": HOSTILE})
        memory = stores.memories.create(store.id, path="/a.md", content=f"{HOSTILE}\nwords of {HOSTILE}")
        version = memory.memory_version_id
        stores.memories.update(memory.id, memory_store_id=store.id, content=f"{HOSTILE}\nothers \x1b[2J")
        key = json.loads(server.cli("keys", "create", "--workspace", "default", "--name", "x", "--json").stdout)
        here = {**environment, "MEMSTORE_BASE_URL": server.base_url, "MEMSTORE_API_KEY": server.api_key}
        made = run_cli(here, "sessions", "create", "--store", store.id, "--title", "x", "--json").stdout
        session = json.loads(made)
        server.stop()
        with sqlite3.connect(Path(environment["MEMSTORE_DATA_DIR"], "memstore.db")) as database:
            # The audit log takes no change, so its guards go; a stranger's database never had them.
            for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                database.execute(f'DROP TRIGGER "{name}"')
            for statement in (
                "UPDATE memory_stores SET name = ?1",
                "UPDATE memories SET path = ?2", "UPDATE memory_versions SET path = ?2, actor_id = ?1",
                "UPDATE sessions SET title = ?1", "UPDATE api_keys SET name = ?1", "UPDATE environments SET name = ?1",
                "UPDATE session_resources SET name = ?1, description = ?1, instructions = ?1",
                "UPDATE audit_entries SET actor_id = ?1, request_id = ?1",
            ):  # fmt: skip
                database.execute(statement, (LONG, PATH) if "?2" in statement else (LONG,))
        server.start()
        shutil.make_archive(str(place / "archive"), "zip", _hostile_files(place / "files"))
        yield {
            "store": store.id, "memory": memory.id, "version": version, "key": key["id"], "url": server.base_url,
            "session": session.get("id") or session["session"]["id"], "archive": str(place / "archive.zip"),
            "hostile": hostile, "data": environment["MEMSTORE_DATA_DIR"], "api_key": server.api_key,
        }  # fmt: skip


def _hostile_files(directory: Path) -> Path:
    directory.mkdir()
    for name in ("a\x1b[31m.md", "b\u202e.md", "c\n.md", "d\x9b.md"):
        (directory / name).write_text(HOSTILE)
    (directory / "export.json").write_text(HOSTILE)
    return directory


@pytest.fixture
def run(
    words: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Iterator[Callable[..., tuple[str, str]]]:
    """Run a command in this process as if in a terminal; what it printed."""
    (tmp_path / "run").mkdir(mode=0o700)
    for name in [name for name in os.environ if name.startswith("MEMSTORE_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "MEMSTORE_DATA_DIR": words["data"], "MEMSTORE_RUN_DIR": str(tmp_path / "run"), "PAGER": "", "NO_COLOR": "1",
        "MEMSTORE_STATE_DIR": str(tmp_path / "state"), "MEMSTORE_BASE_URL": words["url"], "COLUMNS": "100",
        "MEMSTORE_API_KEY": words["api_key"], "MEMSTORE_DATABASE_WAIT_SECONDS": "0",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(terminal, "is_terminal", lambda: True)
    monkeypatch.chdir(tmp_path)
    number = 0

    def call(command: tuple[str, ...], arguments: list[str], **more: str) -> tuple[str, str]:
        nonlocal number
        number += 1
        filled = [_filled(argument, {**words, "new": str(tmp_path / f"new{number}"), **more}) for argument in arguments]
        mask = os.umask(0o077)
        try:
            main.main([*command, *filled])
        except SystemExit:
            pass  # A refusal is as good as a success; a traceback would be another exception.
        finally:
            os.umask(mask)
        out, err = capsysbinary.readouterr()
        return out.decode(), err.decode()

    yield call
    if any((tmp_path / "run").glob("**/*.sock*")):
        call(("unmount",), ["--force"])  # Nothing of the hostile words kept a mount from being made.


def _filled(argument: str, words: dict[str, str]) -> str:
    for name, value in words.items():
        argument = argument.replace(f"{{{name}}}", value)
    return argument


def check(command: tuple[str, ...], arguments: list[str], out: str, err: str) -> None:
    assert obeyed((out + err).replace("\r", "")) <= {"\n", "\t"}, (command, arguments, out, err)
    ours = err if command in (("show",), ("diff",)) else out + err  # The lines of a content are its own.
    assert not any(line.startswith("memstore: forged") for line in ours.splitlines()), (command, arguments, ours)


@pytest.mark.parametrize("command", CALLS, ids=" ".join)
def test_a_command_prints_nothing_that_a_terminal_obeys(
    command: tuple[str, ...], run: Callable[..., tuple[str, str]]
) -> None:
    for arguments in CALLS[command]:
        check(command, arguments, *run(command, arguments))


@pytest.mark.parametrize("command", AT_A_HOSTILE_SERVER, ids=" ".join)
def test_what_a_hostile_server_says_is_printed_as_harmlessly(
    command: tuple[str, ...], run: Callable[..., tuple[str, str]], hostile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMSTORE_BASE_URL", hostile)
    for arguments in CALLS[command]:
        check(command, arguments, *run(command, arguments, url=hostile))
