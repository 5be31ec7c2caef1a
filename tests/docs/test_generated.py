"""The generated pages: current, complete, and able to be found wrong."""

import copy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from app.server.application import create_app
from scripts import api_table, check_generated, man_page
from tests.docs.blocks import PROJECT
from tests.docs.test_pages import documented_commands

MEMORY = "/v1/memory_stores/{memory_store_id}/memories/{memory_id}"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the generated pages, to be broken."""
    for page in check_generated.PAGES:
        (tmp_path / page).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / page, tmp_path / page)
    return tmp_path


@pytest.fixture(scope="session")
def document() -> dict[str, Any]:
    """The OpenAPI document of the application."""
    return create_app().openapi()


def test_the_generated_pages_are_what_the_code_says() -> None:
    assert check_generated.stale(PROJECT) == {}


def test_edited_pages_are_found_and_fixed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    right = {page: (project / page).read_text(encoding="utf-8") for page in check_generated.PAGES}
    for page, text in right.items():
        (project / page).write_text(text.replace("e", "x", 1), encoding="utf-8")
    assert check_generated.main(["--root", str(project)]) == 1
    told = capsys.readouterr().err
    assert told.splitlines() == [
        f"{page}: not what the code says; fix it with: {check_generated.FIX}" for page in check_generated.PAGES
    ]
    assert check_generated.main(["--root", str(project), "--write"]) == 0
    assert {page: (project / page).read_text(encoding="utf-8") for page in right} == right
    assert check_generated.main(["--root", str(project)]) == 0


def test_a_missing_page_is_found(project: Path) -> None:
    page = next(iter(check_generated.PAGES))
    (project / page).unlink()
    assert check_generated.main(["--root", str(project)]) == 1


def served_of(document: dict[str, Any], *resources: str) -> list[api_table.Comparison]:
    """The part of the comparison that is about these resources."""
    routes = tuple(f"/v1/{resource}" for resource in resources)
    return [each for each in api_table.compare(document) if each[0].route.startswith(routes)]


@pytest.mark.parametrize(("resource", "routes"), [("memory_stores", 14), ("agents", 6), ("environments", 6)])
def test_every_route_and_field_of_the_vendor_is_served(document: dict[str, Any], resource: str, routes: int) -> None:
    comparison = served_of(document, resource)
    assert len(comparison) == routes
    missing = [
        (vendor.method, vendor.route, row.place, row.name)
        for vendor, _, rows in comparison
        for row in rows
        if row.ours is None
    ]
    assert missing == []


def test_what_is_not_served_of_sessions_is_about_other_things_than_memory(document: dict[str, Any]) -> None:
    comparison = served_of(document, "sessions")
    routes = {f"{vendor.method} {vendor.route}" for vendor, ours, _ in comparison if ours is None}
    of_one = "/v1/sessions/{session_id}/resources/{resource_id}"
    assert routes == {"POST /v1/sessions/{session_id}/resources", f"POST {of_one}", f"DELETE {of_one}"}
    fields: dict[str, set[str]] = {}
    for _, ours, rows in comparison:
        for row in rows if ours is not None else ():
            if row.ours is None:
                first, _, rest = row.name.removeprefix("data[].").partition(".")
                fields.setdefault(first, set()).add(rest.partition(".")[0])
    files_and_repositories = {"id", "created_at", "updated_at", "url", "checkout", "file_id"}
    assert fields.pop("resources[]") == files_and_repositories | {"authorization_token", "mount_path"}
    others = {"budget", "initial_events[]", "outcome_evaluations[]", "vault_ids"}
    assert fields.keys() == others | files_and_repositories


def different_types(document: dict[str, Any], resource: str) -> set[tuple[str, str]]:
    return {
        (row.place, row.name.removeprefix("data[]."))
        for _, _, rows in served_of(document, resource)
        for row in rows
        if row.ours is not None and row.ours != row.vendor
    }


def test_every_field_of_a_memory_has_the_vendors_type(document: dict[str, Any]) -> None:
    assert different_types(document, "memory_stores") == {
        ("body", "content"),  # creating with null: what the vendor does is not known, here it is refused
        ("body", "precondition"),  # null is accepted as if it were absent
    }


def test_every_field_of_an_agent_has_the_vendors_type(document: dict[str, Any]) -> None:
    assert different_types(document, "agents") == {
        ("response", "model.effort"),  # never null, as the vendor's own words have it
        ("response", "model.speed"),  # never null
        ("body", "tools[].input_schema.properties"),  # an object of anything, in other words
        ("response", "tools[].input_schema.properties"),
    }


def test_every_field_of_an_environment_has_the_vendors_type(document: dict[str, Any]) -> None:
    assert different_types(document, "environments") == {
        ("query", "page"),  # there is no null in a URL
        ("body", "config.type"),  # the vendor takes `anthropic_cloud` too, which its notebooks write
        ("response", "config.type"),
        ("body", "scope"),  # the vendor refuses `account` too, but for its own apps
        ("response", "scope"),
        ("response", "config.packages.type"),  # never null
        ("response", "created_at"),  # the vendor's text is a time
        ("response", "updated_at"),
        ("response", "archived_at"),
    }


def test_the_coverage_table_shows_what_is_not_served(document: dict[str, Any]) -> None:
    poorer = copy.deepcopy(document)
    (served,) = [route for route in poorer["paths"] if api_table.same_route(route, MEMORY)]
    del poorer["paths"][served]["delete"]
    lines = api_table.render(poorer).splitlines()
    (row,) = [line for line in lines if "`beta.memory_stores.memories.delete`" in line]
    assert row == f"| `beta.memory_stores.memories.delete` | `DELETE {MEMORY}` | **no** | 0 of 5 |"
    assert lines.count('| response | `type` | "memory_deleted" |  | **no** |') == 1


def test_the_manual_page_has_every_command_and_troff_has_no_complaint(tmp_path: Path) -> None:
    page = man_page.render()
    for words, options in documented_commands().items():
        assert f".B memstore {' '.join(words)}".replace("-", "\\-") in page
        for option in options:
            assert option.replace("-", "\\-") in page
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("no groff on this machine reads manual pages")
    (tmp_path / "memstore.1").write_text(page, encoding="utf-8")
    done = subprocess.run(
        [groff, "-man", "-Kutf8", "-Tutf8", "-ww", "-z", tmp_path / "memstore.1"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
