"""`memstore stores`, `memstore ls` and `memstore sessions`; and what a person may call a store, everywhere."""

import unicodedata
from pathlib import Path

import anthropic
import pytest
from rich.cells import cell_len

from tests.commands.conftest import Commands


@pytest.fixture
def notes(client: anthropic.Anthropic, request: pytest.FixtureRequest) -> str:
    """A store with a few memories; its name is that of the test."""
    store = client.beta.memory_stores.create(name=request.node.name, description="what we know")
    for path in ("/notes/today.md", "/notes/deep/er.md", "/top.md"):
        client.beta.memory_stores.memories.create(store.id, path=path, content="text")
    return store.id


def test_a_store_is_made_listed_and_shown(commands: Commands) -> None:
    made = commands.out('stores create "Team notes" --description "for all" --metadata team=a --metadata x=').strip()
    (listed,) = [each for each in commands.json("stores list") if each["id"] == made]
    assert commands.json("stores show", made) == listed
    assert (listed["name"], listed["description"], listed["metadata"]) == (
        "Team notes",
        "for all",
        {"team": "a", "x": ""},
    )
    assert f"{made}  {listed['created_at'][:10]}" in commands.out("stores list")
    assert "metadata team  a\n" in commands.out("stores show", "Team notes")
    assert "must be KEY=VALUE" in commands.refused("stores create x --metadata team")


def test_an_archived_store_is_listed_on_request(commands: Commands, client: anthropic.Anthropic, notes: str) -> None:
    client.beta.memory_stores.archive(notes)
    assert notes not in commands.out("stores list")
    assert f"{notes}  " in commands.out("stores list --all")
    assert notes in {each["id"] for each in commands.json("stores list --all")}


def test_ls_lists_one_level_or_everything_or_one_memory(commands: Commands, notes: str) -> None:
    assert commands.out("ls", notes) == "/notes/\n/top.md\n"
    assert (
        commands.out("ls", notes, "notes") == commands.out("ls", notes, "/notes/") == "/notes/deep/\n/notes/today.md\n"
    )
    assert commands.out("ls -R", notes).split() == ["/notes/deep/er.md", "/notes/today.md", "/top.md"]
    assert commands.out("ls", notes, "notes/today.md") == "/notes/today.md\n"
    (line,) = commands.out("ls -l", notes, "top.md").splitlines()
    assert (line.split()[0], line.split()[-1]) == ("4", "/top.md")
    assert [each["path"] for each in commands.json("ls", notes)] == ["/notes/", "/top.md"]
    assert "nothing is at '/nowhere'" in commands.refused("ls", notes, "nowhere")


def test_a_store_is_its_id_the_beginning_of_one_or_its_name(
    commands: Commands, notes: str, request: pytest.FixtureRequest
) -> None:
    name = request.node.name
    others = [each["id"] for each in commands.json("stores list --all") if each["id"] != notes]
    beginning = next(notes[:size] for size in range(12, 34) if not any(o.startswith(notes[:size]) for o in others))
    for called in (notes, beginning, name):
        assert commands.json("stores show", called)["id"] == notes  # by the API
        assert len(commands.json("log", called)) == 3  # and in the database
        assert commands.out("show", called, "top.md") == "text"
        assert commands.json("export", called, "--output", f"out-{len(called)}.tar")["memory_store_id"] == notes
    assert commands.out("hold", name).startswith(notes)
    assert commands.out("hold --release", name).startswith(notes)
    assert "called 'no such'" in commands.refused("log", "no such")
    assert "called 'no such'" in commands.refused("ls", "no such")
    for command in ("log", "ls", "hold", "stores show"):
        assert "was not found" in commands.refused(command, "memstore_0nowhere")
    assert "was not found" in commands.refused("log", f"{notes[:-1]}z")


def test_a_name_in_another_canonical_form_is_the_same(commands: Commands) -> None:
    made = commands.out("stores create", unicodedata.normalize("NFC", "Müller")).strip()
    for form in ("NFC", "NFD"):
        assert commands.json("stores show", unicodedata.normalize(form, "Müller"))["id"] == made
        assert commands.json("log", unicodedata.normalize(form, "Müller")) == []


def test_where_several_may_be_meant_they_are_listed_and_nothing_is_done(commands: Commands) -> None:
    first, second = (commands.out("stores create twins").strip() for _ in range(2))
    for command in ("ls", "log", "hold", "stores show", "forget --yes --store", "sessions create --store"):
        said = commands.refused(command, "twins")
        assert "'twins' may be any of these" in said, command
        assert f"\n  {first}  'twins'" in said
        assert f"\n  {second}  'twins'" in said
    assert "may be any of these" in commands.refused("log", "memstore_01")


def test_a_name_is_looked_for_in_the_workspace_that_is_named(commands: Commands) -> None:
    commands.out("keys create --workspace elsewhere --name x")
    here = commands.out("stores create namesakes").strip()
    archive = "namesakes.tar"
    commands.out("export namesakes --output", archive)
    there = commands.json("import --workspace elsewhere --name namesakes", archive)["memory_store_id"]
    for workspace, meant in (("default", here), ("elsewhere", there)):
        for called in ("namesakes", meant):
            plan = commands.json(f"forget --workspace {workspace} --store", called)
            assert [one["id"] for one in plan["stores"]] == [meant]
            into = commands.json(f"import --workspace {workspace} --into", called, archive)
            assert into["memory_store_id"] == meant
    for line in (f"forget --workspace default --store {there}", f"import {archive} --workspace default --into {there}"):
        assert f"'{there}' was not found" in commands.refused(line)
    for line in ("forget --store", f"import {archive} --into"):
        assert "may be any of these" in commands.refused(line, "namesakes")
    for line in ("forget --store namesakes", f"import {archive} --into namesakes"):
        assert "'nowhere'" in commands.refused(f"{line} --workspace nowhere")


def test_no_store_is_mistaken_for_the_one_whose_id_it_bears_as_its_name(commands: Commands, notes: str) -> None:
    bears = commands.out("stores create", notes).strip()
    gone = f"{notes[:-2]}zz"
    commands.out("stores create", gone)
    assert commands.json("stores show", notes)["id"] == notes != bears
    assert len(commands.json("log", notes)) == 3
    assert "was not found" in commands.refused("log", gone)
    assert "was not found" in commands.refused("stores show", gone)


def test_what_is_no_text_is_no_name(commands: Commands) -> None:
    for command in ("log", "ls", "hold", "stores show", "stores create"):
        assert "memstore: " in commands.refused(command, "caf\udce9")


def test_a_session_is_made_with_stores_by_name_and_shown_by_title(commands: Commands, notes: str) -> None:
    made = commands.run("sessions create --read-only --title 'tidy the notes' --store", notes)
    session_id = made.out.strip()
    assert made.status == 0
    assert f"memstore mount --session {session_id}" in made.err
    shown = commands.json("sessions show", "tidy the notes")
    assert shown["id"] == session_id
    assert [(each["memory_store_id"], each["access"]) for each in shown["resources"]] == [(notes, "read_only")]
    assert f"{shown['resources'][0]['mount_path']}  {notes}  read-only" in commands.out("sessions show", session_id)
    again = commands.json("sessions create --store", notes)
    assert (again["agent"]["id"], again["environment_id"]) == (shown["agent"]["id"], shown["environment_id"])
    (listed,) = [each for each in commands.json("sessions list") if each["id"] == session_id]
    assert [each["id"] for each in listed["stores"]] == [notes]


def test_tables_fit_a_terminal_of_80_columns_under_a_head(commands: Commands) -> None:
    commands.out("stores create", "名" * 200)
    commands.out("stores create", "n" * 255)
    commands.out("sessions create --title", "t" * 400, "--store", "n" * 255)
    commands.out("keys create --workspace", "w" * 100, "--name", "k" * 100)
    for command in ("stores list", "stores list --all", "sessions list", "keys list"):
        head, *lines = commands.seen(command).splitlines()
        assert head.startswith("ID  "), command
        assert max(map(cell_len, [head, *lines])) <= 80, command
        assert any("…" in line for line in lines)
        assert "…" not in commands.out(command), "a pipe gets every value whole"


def test_the_key_of_the_first_start_is_for_this_host_alone(commands: Commands, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    commands.variables |= {"MEMSTORE_BOOTSTRAP_API_KEY": "", "MEMSTORE_DATA_DIR": str(data)}
    assert f"{data}/api_key is not there" in commands.refused("stores list")
    (data / "api_key").write_text(f"{commands.server.api_key}\n")
    commands.out("stores list")
    commands.variables["MEMSTORE_BASE_URL"] = "http://memory.example:8080"
    assert "set MEMSTORE_API_KEY or MEMSTORE_TOKEN" in commands.refused("stores list")


def test_a_server_that_is_none_is_told_in_one_sentence(commands: Commands) -> None:
    commands.variables["MEMSTORE_API_KEY"] = "wrong"
    assert "does not know the secret from MEMSTORE_API_KEY" in commands.refused("stores list")
    for url, sentence in (
        ("http://127.0.0.1:1", "no server answers at http://127.0.0.1:1"),
        ("127.0.0.1:8080", "must be an http or https URL"),
        ("http://[::1", "is no URL"),
    ):
        commands.variables["MEMSTORE_BASE_URL"] = url
        assert sentence in commands.refused("ls x")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("nonsense", "memstore: no such command 'nonsense'; see 'memstore --help'\n"),
        ("log", "memstore: missing argument 'STORE'; see 'memstore log --help'\n"),
        (
            "log x --limit y",
            "memstore: invalid value for '--limit': must be a valid integer, ",
        ),
        ("restore x", "memstore: give PATH and --version for a memory, or --at TIME"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_sentence(commands: Commands, line: str, sentence: str) -> None:
    assert commands.refused(line).startswith(sentence)


def test_an_administrators_command_says_which_deployment_it_looks_at(commands: Commands) -> None:
    done = commands.run("keys list")
    data = commands.server.environment["MEMSTORE_DATA_DIR"]
    assert done.err.startswith("memstore: deployment ")
    assert f"…, SQLite in {data}, " in done.err
    assert "workspace" in done.err
    assert "store" in done.err


def test_an_interrupted_command_says_so_and_how_to_finish_an_erasure(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("app.cli.api.connected", interrupted)
    monkeypatch.setattr("app.cli.forget.with_storage", interrupted)
    done = commands.run("stores list")
    assert (done.status, done.err.strip()) == (130, "memstore: interrupted")
    done = commands.run("forget --where a=b --yes --report r.json")
    assert done.status == 130
    assert "finish it with 'memstore forget --resume --report r.json'" in done.err
    assert commands.run("forget --where a=b").err.strip() == "memstore: interrupted"
