"""The generated pages: current, complete, and able to be found wrong."""

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest

from app.http.application import create_app
from scripts import api_table, check_generated
from tests.docs.blocks import PROJECT

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


@pytest.mark.parametrize("page", check_generated.PAGES)
def test_an_edited_page_is_found_and_mended(page: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    right = (project / page).read_text(encoding="utf-8")
    (project / page).write_text(right.replace("yes", "no").replace("whole number", "text"), encoding="utf-8")
    assert check_generated.main(["--root", str(project)]) == 1
    told = capsys.readouterr().err
    assert told.splitlines() == [f"{page}: not what the code says; mend it with: {check_generated.MEND}"]
    assert check_generated.main(["--root", str(project), "--write"]) == 0
    assert (project / page).read_text(encoding="utf-8") == right
    assert check_generated.main(["--root", str(project)]) == 0


def test_a_missing_page_is_found(project: Path) -> None:
    page = next(iter(check_generated.PAGES))
    (project / page).unlink()
    assert check_generated.main(["--root", str(project)]) == 1


def test_every_route_and_field_of_the_vendors_memory_api_is_served(document: dict[str, Any]) -> None:
    comparison = api_table.compare(document)
    assert len(comparison) == 14
    missing = [
        (vendor.method, vendor.route, row.place, row.name)
        for vendor, _, rows in comparison
        for row in rows
        if row.ours is None
    ]
    assert missing == []


def test_every_field_has_the_vendors_type(document: dict[str, Any]) -> None:
    different = {
        (row.place, row.name)
        for _, _, rows in api_table.compare(document)
        for row in rows
        if row.ours is not None and row.ours != row.vendor
    }
    assert different == {
        ("body", "content"),  # creating with null: what the vendor does is not known, here it is refused
        ("body", "precondition"),  # null is accepted as if it were absent
    }


def test_the_coverage_table_shows_what_is_not_served(document: dict[str, Any]) -> None:
    poorer = copy.deepcopy(document)
    (served,) = [route for route in poorer["paths"] if api_table.same_route(route, MEMORY)]
    del poorer["paths"][served]["delete"]
    lines = api_table.render(poorer).splitlines()
    (row,) = [line for line in lines if "`beta.memory_stores.memories.delete`" in line]
    assert row == f"| `beta.memory_stores.memories.delete` | `DELETE {MEMORY}` | **no** | 0 of 5 |"
    assert lines.count('| response | `type` | "memory_deleted" |  | **no** |') == 1
