"""The page about changes: its example is run, and answers as the page shows."""

import re
from pathlib import Path

import pytest

from tests.docs.blocks import READERS_URL, SHELL, SHOWN_ONLY, blocks, make_readers_directory, run_as_reader
from tests.support.servers import Server

pytestmark = pytest.mark.any_backend

PAGE = "docs/reference/changes.md"


def without_accidents(text: str) -> str:
    """The text without what differs each time: IDs and times."""
    text = re.sub(r"(memstore|mem|memver|apikey)_01\w{22}", r"\1_01", text)
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "a time", text)


def test_the_example_prints_what_the_page_shows(server: Server, tmp_path: Path) -> None:
    found = blocks(PAGE)
    assert {block.language for block in found} <= {SHELL, *SHOWN_ONLY}
    directory = make_readers_directory(tmp_path / "checkout", server.api_key)
    printed = run_as_reader(found, SHELL, directory, server.environment, {READERS_URL: server.base_url})
    for block in found:
        if block.language in SHOWN_ONLY:
            assert without_accidents(block.text).strip() in without_accidents(printed)
