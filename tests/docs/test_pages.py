"""The pages against the product: links, names, limits, errors, metrics, commands."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import httpx2
import pytest
import typer

import app
from app import client
from app.cli import mount_settings
from app.cli.main import app as program
from app.cli.main import load
from app.client import client as client_module
from app.client import credentials
from app.contract import errors, limits
from app.erasure.places import OUT_OF_REACH
from app.http import forms
from app.http.documents import ErrorCause
from app.keys import service as keys
from app.server import health
from app.server.protocol import BoundedProtocol
from app.settings import Settings
from app.storage.rows import postgres_connect, sqlite_reads
from app.transfer.archives import bounds
from scripts.settings_table import environment_names
from tests.docs.blocks import PROJECT

pytestmark = pytest.mark.any_backend

KIB, GIB = 1_024, 1_024**3
PAGES = sorted(str(page.relative_to(PROJECT)) for page in [*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")])
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
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(found["target"])
    assert broken == []


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_a_page_names_exists(page: str) -> None:
    known = {name for field, info in Settings.model_fields.items() for name in environment_names(Settings, field, info)}
    named = {
        name
        for name in re.findall(r"MEMSTORE_[A-Z0-9_]*[A-Z0-9]", text_of(page))
        if not name.startswith(FOR_TESTS_ONLY)
    }
    assert named <= known | {*mount_settings.VARIABLES, credentials.WORKSPACE}


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


def test_the_table_of_errors_says_of_each_when_it_comes_and_what_to_do() -> None:
    section = text_of("docs/reference/http-api.md").partition("## Errors")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| \d{3} \| `\w+` \|(.*)\|(.*)\|$", section, re.MULTILINE)
    assert len(rows) == len(error_types())
    assert all(len(when.split()) > 2 < len(what_to_do.split()) for when, what_to_do in rows)
    codes = get_args(get_type_hints(ErrorCause)["error_code"])
    assert {code for code in codes if f"`{code}`" not in section} == set()
    assert {"retry-after", "allow", "x-should-retry", "conflicting_memory_id", "conflicting_path", "erased"} <= set(
        re.findall(r"[\w-]+", section)
    )


def test_the_limits_page_has_every_limit_of_the_contract() -> None:
    section = text_of("docs/reference/http-api.md").partition("## Listings")[2]
    numbers = set(re.findall(r"\d+(?:,\d{3})*", section))
    missing = {name: value for name, value in vars(limits).items() if name.isupper() and f"{value:,}" not in numbers}
    assert missing == {}


BOUNDS = {
    "A request's head": (
        f"{BoundedProtocol.head_bytes // KIB} KiB and {BoundedProtocol.head_fields} fields",
        f"{BoundedProtocol.head_seconds:g} s;",
    ),
    "A request's body": (f"{BoundedProtocol.body_bytes:,} bytes in {BoundedProtocol.body_seconds:g} s",),
    "Connections of a process": (f"{BoundedProtocol.waiting_most:,};",),
    "A client that does not read": (f"{BoundedProtocol.stalled_seconds:g} s,",),
    "Look-ups of unknown keys": (f"{keys._STRANGERS_AT_ONCE} at a time",),
    "`/readyz` and `/metrics`": (f"{health._PER_SECOND} times a second, {health._AT_ONCE} in a row",),
    "A read of SQLite": (f"{sqlite_reads.READ_SECONDS:g} s,", f"{sqlite_reads._LOOP_SECONDS * 1_000:g} ms"),
    "A statement on PostgreSQL": (f"{postgres_connect._COMMAND_SECONDS:g} s,",),
    "Entries of a source": (f"{bounds.Bounds().files:,};", f"{bounds.NAME_BYTES:,} bytes"),
    "Bytes of a source": (f"{bounds.Bounds().bytes // GIB} GiB", f"{bounds.Bounds().ratio} times"),
    "`export.json`": (f"{bounds.OWN_FILE_BYTES // KIB} KiB, {bounds.LINE_BYTES // KIB} KiB",),
    "A form": (f"boundary of {forms._BOUNDARY_BYTES} bytes",),
}


@pytest.mark.parametrize("what", BOUNDS)
def test_the_limits_page_has_the_bounds_that_the_code_has(what: str) -> None:
    (row,) = [line for line in text_of("docs/reference/limits.md").splitlines() if line.startswith(f"| {what}")]
    assert [bound for bound in BOUNDS[what] if bound not in row] == []


def test_the_page_on_forgetting_names_all_that_no_erasure_reaches() -> None:
    page = (PROJECT / "docs/how-to/forget-a-person.md").read_text()
    assert [what for what in OUT_OF_REACH if f"  {what}\n" not in page] == []
    named = " ".join(OUT_OF_REACH)
    assert all(place in named for place in ("backups", "blocks of disks", "memory of servers", "clients", "mounts"))


def test_the_metrics_page_names_only_metrics_that_are_served(http: httpx2.Client) -> None:
    served = http.get("/metrics").text
    named = set(re.findall(r"memstore_\w+", text_of("docs/reference/metrics.md")))
    assert named
    assert {name for name in named if not re.search(rf"^# TYPE {name} ", served, re.MULTILINE)} == set()


def documented_commands() -> dict[tuple[str, ...], set[str]]:
    """The commands of the command line's page, each with its options."""
    synopses = re.findall(r"^\| `memstore (.*?)` \|", text_of("docs/reference/cli.md"), re.MULTILINE)
    return {
        tuple(re.split(r" (?=[\[A-Z-])", synopsis)[0].split()): set(re.findall(r"--[a-z-]+", synopsis))
        for synopsis in synopses
    }


def commands(command: Any, *name: str) -> Iterator[tuple[tuple[str, ...], set[str]]]:
    """The commands that the program has, those of groups too, each with its options."""
    members = getattr(command, "commands", None)
    if members is None or command.invoke_without_command:
        yield name, {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
    for member, below in (members or {}).items():
        yield from commands(below, *name, member)


def test_the_command_line_page_has_the_commands_and_their_options() -> None:
    names = typer.main.get_command(program).commands  # type: ignore[attr-defined]
    assert documented_commands() == {name: options for top in names for name, options in commands(load(top), top)}


def test_the_changelog_has_this_version() -> None:
    assert re.search(rf"^## {re.escape(app.__version__)} - \d{{4}}-\d\d-\d\d$", text_of("CHANGELOG.md"), re.MULTILINE)


def test_the_index_leads_to_every_page() -> None:
    linked = {found["target"].partition("#")[0] for found in LINK.finditer(text_of("docs/README.md"))}
    pages = {str(page.relative_to(PROJECT / "docs")) for page in (PROJECT / "docs").rglob("*.md")}
    assert pages - linked == {"README.md"}


def test_the_clients_page_has_every_name_that_it_exports() -> None:
    named = set(re.findall(r"`(\w+)`", text_of("docs/reference/client.md")))
    assert {name for name in client.__all__ if not name.startswith("__")} <= named
    for part in ("stores", "memories", "versions"):
        kind = getattr(client_module, part.capitalize())
        assert {name for name in vars(kind) if not name.startswith("_")} <= named
    mine = {name for name in vars(client.Memstore) if not name.startswith("_")}
    assert mine <= named
