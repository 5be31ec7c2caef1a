"""`log`, `blame` and `audit list` for people: authors by name, tables that fit, filters."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import anthropic
import pytest
from rich.cells import cell_len

from app.cli.operator import system_user
from tests.commands.conftest import Commands
from tests.support.servers import Server

HOSTILE = "\x1b]0;owned\x07\u202eevil\nmemstore: forged"


@dataclass(frozen=True)
class Story:
    """A store that three authors wrote, with a path of 60 cells."""

    store: str
    key: str
    session: str
    path: str = "/notes/" + "long-" * 9 + "name.md"


@pytest.fixture(scope="module")
def story(server: Server, client: anthropic.Anthropic, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """What a key named "ci", a session named "fix the release" and the operator wrote."""
    commands = Commands(server, tmp_path_factory.mktemp("story"))
    made = commands.json("keys create --workspace default --name ci")
    with server.client(api_key=made["secret"]) as ci:
        store = ci.beta.memory_stores.create(name="Story")
        ci.beta.memory_stores.memories.create(store.id, path="/a.md", content="one\n")
    session = commands.out("sessions create --title 'fix the release' --store Story").strip()
    token = commands.json("sessions token", session)["token"]
    with server.client(api_key=None, auth_token=token) as agent:
        agent.beta.memory_stores.memories.create(store.id, path=Story.path, content="two\n")
    commands.out("restore Story /a.md --version @1 --to /b.md")
    return Story(store.id, made["id"], session)


def test_who_wrote_what_is_answered_with_names(commands: Commands, story: Story) -> None:
    operator, session, key = (line.split("  ")[3].strip() for line in commands.seen("log Story").splitlines()[1:])
    assert (operator, session.strip(), key) == (f"cli:{system_user()}", "fix the relea…", "key ci")
    wide = commands.seen("log Story", columns=160).splitlines()
    assert f"  fix the r… (sesn…{story.session[-6:]})  {story.path}" in wide[2]
    assert "  key ci  " in wide[3]
    assert f"  key ci ({story.key})  " in commands.out("log Story"), "a pipe has whole IDs"
    assert f"  fix the release ({story.session})  {story.path}\n" in commands.out("log Story")
    assert f"  {story.session}  " in commands.seen("log --ids Story", columns=160)
    assert "  key ci  1  one\n" in commands.seen("blame Story b.md")
    assert f"  key ci ({story.key})  1  one\n" in commands.out("blame Story b.md")
    assert "key ci" in commands.seen("audit list", columns=200)


def test_the_log_and_the_audit_log_fit_80_columns(commands: Commands, story: Story) -> None:
    for command in ("log Story", "audit list", "log Story --ids"):
        head, *lines = commands.seen(command).splitlines()
        assert head.split()[:2] == ["N", "WHEN"], command
        assert max(map(cell_len, lines)) <= 80, command
    assert "name.md\n" in commands.seen("log Story"), "the end of a path says most"


def test_the_log_is_filtered_by_author_place_and_time(commands: Commands, story: Story) -> None:
    def found(*more: str) -> list[int]:
        return [each["seq"] for each in commands.json("log Story", *more)]

    assert found("--author", "ci") == found("--author", "key ci") == found("--author", story.key) == [1]
    assert found("--author", "fix the release") == found("--author", story.session[:20]) == [2]
    assert found("--author", "nobody") == found("--author", "") == []
    assert found("--path-prefix", "notes") == found("--path-prefix", "/notes/") == [2]
    assert found("--path-prefix", "/note") == []
    assert found("--path-prefix", "/") == [3, 2, 1]
    assert found("--path-prefix", "/", "--limit", "2") == [3, 2]
    assert found("--since", "1h") == [3, 2, 1]
    assert found("--since", "2999-01-01") == []
    assert "15m, 2h or 3d" in commands.refused("log Story --since yesterday")


def test_the_audit_log_is_filtered_by_actor_and_shows_nothing_that_is_none(commands: Commands, story: Story) -> None:
    lines = commands.out("audit list --actor ci").splitlines()
    assert lines
    assert all(story.key in line for line in lines)
    assert commands.out("audit list --actor nobody") == ""
    assert "None" not in commands.out("audit list")
    assert "15m, 2h or 3d" in commands.refused("audit list --since yesterday")


def test_an_author_with_a_hostile_name_forges_no_line(
    commands: Commands, client: anthropic.Anthropic, server: Server
) -> None:
    made = commands.out("stores create hostile").strip()
    commands.out("sessions create --store hostile --title", HOSTILE)
    session_id = next(each["id"] for each in commands.json("sessions list") if each["title"] == HOSTILE)
    token = commands.json("sessions token", session_id)["token"]
    with server.client(api_key=None, auth_token=token) as agent:
        agent.beta.memory_stores.memories.create(made, path="/x.md", content="x\n")
    for line in ("log hostile", "blame hostile x.md", "audit list", "sessions list"):
        for printed in (commands.out(line), commands.seen(line, columns=200)):
            assert not any(character in printed for character in "\x1b\x07\u202e"), line
            assert not any(each.startswith("memstore: forged") for each in printed.splitlines()), line


def test_git_names_the_author_and_keeps_the_id(commands: Commands, story: Story, tmp_path: Path) -> None:
    commands.out("export Story --git", str(tmp_path / "git"))
    said = subprocess.check_output(
        ["git", "-C", str(tmp_path / "git"), "log", "--reverse", "--format=%an <%ae>"], text=True
    ).splitlines()
    assert said[0] == f"ci <{story.key}@api_actor.memstore.invalid>"
    assert said[1] == f"fix the release <{story.session}@session_actor.memstore.invalid>"
