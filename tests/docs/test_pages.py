"""The pages against the product: links, names, limits, errors, metrics, commands."""

import re
import subprocess
from pathlib import Path

import httpx2
import pytest

import app
from app.contract import errors, limits
from app.settings import Settings
from scripts.settings_table import environment_names
from tests.docs.blocks import PROJECT
from tests.support.servers import MEMSTORE

PAGES = sorted(
    str(page.relative_to(PROJECT)) for page in [*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")]
)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
FOR_TESTS_ONLY = "MEMSTORE_TEST_"


def text_of(page: str) -> str:
    return (PROJECT / page).read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_inside_the_project_leads_somewhere(page: str) -> None:
    broken = []
    for found in LINK.finditer(text_of(page)):
        target, _, anchor = found["target"].partition("#")
        if "://" in target:
            continue
        file = (PROJECT / page).parent / target if target else PROJECT / page
        if not file.is_file() or (anchor and anchor not in anchors(file)):
            broken.append(found["target"])
    assert broken == []


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_a_page_names_exists(page: str) -> None:
    known = {
        name
        for field, info in Settings.model_fields.items()
        for name in environment_names(Settings, field, info)
    }
    named = {
        name
        for name in re.findall(r"MEMSTORE_[A-Z0-9_]*[A-Z0-9]", text_of(page))
        if not name.startswith(FOR_TESTS_ONLY)
    }
    assert named <= known


def error_types() -> set[tuple[int, str]]:
    found, waiting = set(), [errors.MemstoreError]
    while waiting:
        kind = waiting.pop()
        found.add((kind.status, kind.type))
        waiting += kind.__subclasses__()
    return found


def test_the_table_of_errors_is_the_exception_tree() -> None:
    listed = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", text_of("docs/reference/http-api.md"), re.MULTILINE)
    assert sorted((int(status), kind) for status, kind in listed) == sorted(error_types())


def test_the_limits_page_has_every_limit_of_the_contract() -> None:
    section = text_of("docs/reference/http-api.md").partition("## Listings")[2]
    numbers = set(re.findall(r"\d+(?:,\d{3})*", section))
    missing = {
        name: value for name, value in vars(limits).items() if name.isupper() and f"{value:,}" not in numbers
    }
    assert missing == {}


def test_the_metrics_page_names_only_metrics_that_are_served(http: httpx2.Client) -> None:
    served = http.get("/metrics").text
    named = set(re.findall(r"memstore_\w+", text_of("docs/how-to/operate.md")))
    assert named
    assert {name for name in named if not re.search(rf"^# TYPE {name} ", served, re.MULTILINE)} == set()


def help_text(*command: str) -> str:
    done = subprocess.run(
        [MEMSTORE, *command, "--help"],
        env={"PATH": "", "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def test_the_command_line_page_has_the_options_that_the_commands_have() -> None:
    page = text_of("docs/reference/cli.md")
    documented = re.findall(r"^\| `memstore ([a-z ]+?)(?: ?[\[A-Z-].*?)?` \|", page, re.MULTILINE)
    assert len(documented) == len(set(documented))
    for command in documented:
        (row,) = re.findall(rf"^\| `memstore {command}\b(?! \w+`).*$", page, re.MULTILINE)
        in_help = set(re.findall(r"--[a-z][a-z-]+", help_text(*command.split()))) - {"--help"}
        assert set(re.findall(r"--[a-z][a-z-]+", row)) == in_help, command


def test_the_command_line_page_has_every_command() -> None:
    page = text_of("docs/reference/cli.md")
    for group in ((), ("keys",)):
        listing = help_text(*group).partition("Commands")[2]
        commands = re.findall(r"^[│ ]\s?([a-z]+) ", listing, re.MULTILINE)
        assert commands
        for command in commands:
            assert f"`memstore {' '.join((*group, command))}" in page


def test_the_changelog_has_this_version() -> None:
    assert re.search(
        rf"^## {re.escape(app.__version__)} - \d{{4}}-\d\d-\d\d$", text_of("CHANGELOG.md"), re.MULTILINE
    )
