"""Nothing from elsewhere reaches a terminal raw: one module prints, and it escapes what a terminal would obey."""

import ast
import io
import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import app.cli
from app.cli import history_text, kept, main, terminal
from app.cli.authors import Authors
from app.contract.errors import InvalidRequest
from app.storage.rows.tables import CREATED

HOSTILE = "\x1b]0;owned\x07\x9b31m\u202eevil\u2066\u2029\ufeff\u200f\U000e0041\r\nmemstore: forged\x7f\b\t"


PRINTING = (
    "print", "typer.echo", "typer.secho", "click.echo", "sys.stdout.write", "sys.stderr.write",
    "sys.stdout.buffer.write", "sys.stderr.buffer.write",
)  # fmt: skip


def obeyed(text: str) -> set[str]:
    """What a terminal would obey, or nobody could see."""
    return {
        character for character in text if unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs")
        or unicodedata.bidirectional(character) in ("LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI")
    }  # fmt: skip


@pytest.mark.parametrize(("person", "lines"), [(True, 3), (False, 1)])
def test_json_is_indented_for_a_person_and_a_line_for_a_program(
    person: bool, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "is_terminal", lambda: person)
    terminal.echo_json({"a": 1})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"a": 1}
    assert len(printed.splitlines()) == lines


@given(st.text())
def test_a_field_is_one_line_that_no_terminal_obeys(text: str) -> None:
    assert obeyed(terminal.field(text)) == set()


@pytest.mark.parametrize("character", "\u200b\u2060\u2063\u206a\u206f\ufeff\ufff9\ufffb\U000e0041")
def test_what_nobody_can_see_is_shown(character: str) -> None:
    assert terminal.field(f"an{character}na").isascii()


@pytest.mark.parametrize("text", ["\u0915\u094d\u200d\u0937", "\u0645\u06cc\u200c\u062e", "👩\u200d💻", "Mül\u00adler"])
def test_what_words_are_joined_with_stays(text: str) -> None:
    assert terminal.field(text) == text


@given(st.text())
def test_lines_hold_nothing_that_a_terminal_obeys(text: str) -> None:
    printed: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("builtins.print", lambda said, **more: printed.append(said))
        terminal.echo(text)
        terminal.fail(text)
    assert obeyed("".join(printed)) <= {"\n", "\t"}
    assert all(line.startswith(("memstore: ", "  ")) for line in printed[1].split("\n"))


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_is_safe_and_means_the_same(value: object) -> None:
    for indent in (None, 2):
        said = terminal.as_json(value, indent=indent)
        assert obeyed(said) <= {"\n"}
        assert json.loads(said) == value


def test_only_one_module_of_the_commands_prints() -> None:
    """`terminal`; so no command can print what somebody else wrote and forget about it."""
    printing = [
        (file.name, ast.unparse(node))
        for file in Path(app.cli.__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in PRINTING
    ]
    assert {name for name, _ in printing} - {"terminal.py"} <= {"main.py"}
    assert [said for name, said in printing if name == "main.py"] == ["typer.echo(f'memstore {__version__}')"]


def test_an_error_of_a_hostile_server_can_not_forge_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*_: object, **__: object) -> None:
        raise InvalidRequest(f"the server refuses: {HOSTILE}")

    monkeypatch.setattr(main, "app", run)
    with pytest.raises(SystemExit):
        main.main()
    said = capsys.readouterr().err
    assert obeyed(said) <= {"\n", "\t"}
    assert sum(line.startswith("memstore: ") for line in said.splitlines()) == 1


def test_authors_and_paths_of_other_peoples_histories_are_fields() -> None:
    row = {
        "id": "memver_1", "memory_id": "mem_1", "seq": 1, "path": HOSTILE, "operation": CREATED, "created_at": 0,
        "content_size": 1, "redacted_at": None, "actor_id": HOSTILE, "actor_type": "session_actor",
    }  # fmt: skip
    for names in ({}, {HOSTILE: HOSTILE}):
        (line,) = history_text.log([row], Authors(names), {"memver_1": HOSTILE})
        assert obeyed(line) <= {"\n"}
        assert line.count("\n") == 1


def test_what_is_kept_on_a_host_is_shown_as_fields() -> None:
    shown = {"id": "1", "bytes": 1, "operation": HOSTILE, "at": "2026-01-01T00:00:00"}
    shown |= dict.fromkeys(("path", "reason", "place"), HOSTILE)
    assert obeyed("".join(kept.lines_of("memstore_1", shown))) == set()


class _Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_long_work_is_shown_on_a_terminal_only_and_what_it_is_called_is_a_field(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for screen in (_Screen(), io.StringIO()):
        monkeypatch.setattr("sys.stderr", screen)
        with terminal.working("importing [bold]\u202e\x07"):
            terminal.echo("a note meanwhile", err=True)
        said = screen.getvalue()
        assert ("importing [bold]\\u202e\\x07" in said) == screen.isatty()
        assert not set(said) & {"\u202e", "\x07"}
        assert "a note meanwhile" in said
