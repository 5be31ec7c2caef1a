"""`memstore log`, `diff`, `show`, `blame`, `restore`: on the server's own settings, while it runs."""

import json
import os
import pty
import subprocess
from pathlib import Path
from typing import Any

import httpx2
import pytest
from anthropic import Anthropic
from anthropic.types.beta import BetaManagedAgentsMemoryStore as Store

from app.cli.operator import system_user
from tests.contract.history_calls import Item, Told, ok
from tests.contract.shapes import MEMORY_KEYS, VERSION_KEYS
from tests.support.forks import memstore
from tests.support.servers import Server

pytestmark = pytest.mark.any_backend

ESCAPE = "\x1b"


@pytest.fixture
def told(http: httpx2.Client, client: Anthropic, store: Store) -> Told:
    return Told(http, client, store.id)


def printed(server: Server, *arguments: str) -> str:
    return server.cli(*arguments).stdout


def parsed(server: Server, *arguments: str) -> Any:
    return json.loads(printed(server, *arguments, "--json"))


def refused(server: Server, *arguments: str) -> str:
    """What a command that is refused says, in one sentence."""
    done = server.cli(*arguments, check=False)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


def in_terminal(server: Server, *arguments: str, **variables: str) -> str:
    """What a person sees in a terminal."""
    master, slave = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "PAGER", "LESS")}
    with memstore(
        arguments,
        environment={**environment, **server.environment, "TERM": "xterm", **variables},
        directory=Path(server.environment["MEMSTORE_DATA_DIR"]),
        stdin=slave,
        stdout=slave,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(slave)
        seen = b""
        while True:
            try:
                piece = os.read(master, 65_536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            seen += piece
        os.close(master)
        assert process.stderr is not None
        errors = process.stderr.read().decode()
        assert process.wait(60) == 0, errors
    return seen.decode().replace("\r\n", "\n")


def write(told: Told) -> Item:
    """Two memories; the first is written, moved, changed and deleted: changes 1, 3, 4 and 5."""
    memory = told.create("/notes/a.md", "one\ntwo\n")
    told.create("/other.md", "other")
    told.update(memory, content="one\n2\n")
    told.update(memory, path="/notes/b.md")
    told.delete(memory)
    return memory


def test_log_tells_the_versions_of_a_store_or_a_memory(server: Server, told: Told) -> None:
    memory = write(told)
    lines = printed(server, "log", told.store_id).splitlines()
    assert [line.split()[0] for line in lines] == ["@5", "@4", "@3", "@2", "@1"]
    assert "/notes/a.md → /notes/b.md" in lines[1]
    assert ESCAPE not in "".join(lines)
    versions = told.versions(memory)[::-1]
    for path in ("/notes/a.md", "notes/b.md"):  # deleted, and known by its old names
        told_json = parsed(server, "log", told.store_id, path)
        assert [{key: item[key] for key in VERSION_KEYS} for item in told_json] == versions
        assert [item["seq"] for item in told_json] == [5, 4, 3, 1]
    assert len(printed(server, "log", told.store_id, "--limit", "2").splitlines()) == 2
    told.redact(memory["memory_version_id"])
    assert "redacted 20" in printed(server, "log", told.store_id).splitlines()[-1]


def test_diff_compares_the_newest_or_named_versions(server: Server, told: Told) -> None:
    memory = write(told)
    store = told.store_id
    assert (
        printed(server, "diff", store, "notes/b.md") == "--- a/notes/b.md\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-one\n-2\n"
    )
    between = ["diff", store, "notes/a.md", "--from", "@1", "--to", "4"]
    expected = "--- a/notes/a.md\n+++ b/notes/b.md\n@@ -1,2 +1,2 @@\n one\n-two\n+2\n"
    assert printed(server, *between) == f"moved from /notes/a.md to /notes/b.md\n{expected}"
    query = {"from": memory["memory_version_id"], "to": told.versions(memory)[2]["id"]}
    assert parsed(server, *between) == ok(told.compare(**query))
    by_id = printed(server, "diff", store, "notes/a.md", "--from", query["from"], "--to", query["to"])
    assert by_id == printed(server, *between)
    assert "of another memory" in refused(server, "diff", store, "notes/a.md", "--to", "@2")
    assert "@12" in refused(server, "diff", store, "notes/a.md", "--to", "nonsense")
    assert "was not found" in refused(server, "diff", store, "notes/a.md", "--to", "@77")
    assert "give more" in refused(server, "diff", store, "notes/a.md", "--to", "memver_01")


def test_show_prints_the_text_as_it_is_or_was(server: Server, told: Told) -> None:
    memory = write(told)
    store = told.store_id
    assert printed(server, "show", store, "/other.md") == "other"
    assert printed(server, "show", store, "/notes/b.md") == "one\n2\n"  # deleted: as it was last
    assert printed(server, "show", store, "/notes/b.md", "--version", "@1") == "one\ntwo\n"
    told_json = parsed(server, "show", store, "/notes/b.md", "--version", memory["memory_version_id"])
    assert (told_json["content"], told_json["seq"]) == ("one\ntwo\n", 1)
    assert "is a deletion" in refused(server, "show", store, "/notes/b.md", "--version", "@5")
    told.redact(memory["memory_version_id"])
    assert "is redacted" in refused(server, "show", store, "/notes/b.md", "--version", "@1")
    assert "'/nowhere'" in refused(server, "show", store, "nowhere")
    assert "was not found" in refused(server, "show", "memstore_nonsense", "/other.md")


def test_blame_tells_who_wrote_each_line(server: Server, told: Told) -> None:
    memory = write(told)
    lines = printed(server, "blame", told.store_id, "/notes/b.md").splitlines()
    assert [(line.split()[0], line.split()[-1]) for line in lines] == [("@1", "one"), ("@3", "2")]
    assert told.versions(memory)[0]["created_by"]["api_key_id"] in lines[0]
    assert parsed(server, "blame", told.store_id, "/notes/b.md") == ok(told.blame(memory))
    told.redact(memory["memory_version_id"])
    done = server.cli("blame", told.store_id, "/notes/b.md")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["@3?", "@3?"]
    assert "redacted" in done.stderr


def test_restore_brings_a_memory_back(server: Server, told: Told) -> None:
    memory = write(told)
    store = told.store_id
    assert "/notes/a.md is restored to @1" in printed(server, "restore", store, "notes/b.md", "--version", "@1")
    assert told.tree()["/notes/a.md"] == (memory["id"], "one\ntwo\n")
    newest = told.versions(memory)[-1]
    assert newest["operation"] == "created"
    assert newest["created_by"] == {"type": "user_actor", "user_id": f"cli:{system_user()}"}
    assert "nothing was done" in printed(server, "restore", store, "notes/a.md", "--version", "@1")
    body = parsed(server, "restore", store, "notes/a.md", "--version", "@3", "--to", "elsewhere.md")
    assert set(body) == MEMORY_KEYS
    assert (body["path"], body["content"]) == ("/elsewhere.md", "one\n2\n")
    assert told.last_seq == 7
    assert "conflicts" in refused(server, "restore", store, "elsewhere.md", "--version", "@3", "--to", "/other.md")


def test_restore_brings_a_store_back(server: Server, told: Told) -> None:
    write(told)
    store = told.store_id
    then = told.tree_as_of(seq=3)
    dry = printed(server, "restore", store, "--seq", "3", "--dry-run")
    assert dry == "created   /notes/a.md\nwould change 1 memory to be as after change 3; nothing was done\n"
    body = parsed(server, "restore", store, "--seq", "3", "--dry-run")
    assert (body["dry_run"], [change["operation"] for change in body["changes"]]) == (True, ["created"])
    assert told.last_seq == 5
    at = told.versions()[2]["created_at"]
    assert "as after change 3 again; the newest change is 6" in printed(server, "restore", store, "--at", at)
    assert told.tree() == then
    assert "nothing to do" in printed(server, "restore", store, "--at", "0s")
    assert {version["created_by"]["type"] for version in told.versions()[5:]} == {"user_actor"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--at", "yesterday"], "15m, 2h or 3d"),
        (["--at", "2d"], "before the memory store was made"),
        (["--at=-2d"], "before the memory store was made"),
        (["--at", "2 h ago"], "before the memory store was made"),
        (["--at", "2999-01-01T00:00:00Z"], "has not come yet"),
        (["--seq", "77"], "newest change"),
        ([], "--at TIME"),
        (["--seq", "1", "--at", "1h"], "--at TIME"),
        (["/other.md"], "--version"),
        (["/other.md", "--version", "@2", "--seq", "1"], "--version"),
    ],
)
def test_what_restore_can_not_do_is_refused_in_words(
    server: Server, told: Told, arguments: list[str], words: str
) -> None:
    write(told)
    # Boxes are drawn around what is wrong with the options.
    said = " ".join(refused(server, "restore", told.store_id, *arguments).replace("│", " ").split())
    assert words in said
    assert told.last_seq == 5


def test_a_terminal_gets_colour_and_a_pager_and_obeys_no_text(server: Server, told: Told, tmp_path: Path) -> None:
    write(told)
    told.create("/evil.md", "title \x1b]0;owned\x07 end\n")
    pager = tmp_path / "pager"
    pager.write_text("#!/bin/sh\necho paged\nexec cat\n")
    pager.chmod(0o755)
    seen = in_terminal(server, "log", told.store_id, PAGER=str(pager))
    assert seen.startswith("paged\n")
    assert f"{ESCAPE}[36m@5{ESCAPE}[0m" in seen
    plain = in_terminal(server, "log", told.store_id, PAGER="", NO_COLOR="1")
    head, *lines = plain.splitlines()  # a head, and columns that fit: else the same
    assert head.split() == ["N", "WHEN", "DID", "WHO", "PATH"]
    assert [line.split()[0] for line in lines] == [
        line.split()[0] for line in printed(server, "log", told.store_id).splitlines()
    ]
    assert ESCAPE not in plain
    missing = in_terminal(server, "log", told.store_id, PAGER=str(tmp_path / "missing"), NO_COLOR="1")
    assert missing == plain
    diff = in_terminal(server, "diff", told.store_id, "notes/b.md", PAGER="cat")
    assert f"{ESCAPE}[31m-one{ESCAPE}[0m" in diff
    text = in_terminal(server, "show", told.store_id, "evil.md", PAGER="cat")
    assert text == "title \\x1b]0;owned\\x07 end\n"
    assert printed(server, "show", told.store_id, "evil.md") == "title \x1b]0;owned\x07 end\n"
