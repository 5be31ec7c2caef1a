"""The page about seeing and undoing: what it tells to type is typed, and prints what the page shows."""

import re
from pathlib import Path

import pytest

from tests.docs.blocks import READERS_URL, SHELL, SHOWN_ONLY, blocks, make_readers_directory, run_as_reader
from tests.support.servers import Server

pytestmark = pytest.mark.any_backend

PAGE = "docs/how-to/see-and-undo.md"


def without_accidents(text: str) -> str:
    """The text without what differs each time: IDs, times, and who runs it."""
    text = re.sub(r"(memver|apikey)_\w+", r"\1_01", text)
    return re.sub(r"cli:\w+", "cli:user", re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "a time", text))


def test_the_commands_print_what_the_page_shows(server: Server, tmp_path: Path) -> None:
    found = blocks(PAGE)
    assert {block.language for block in found} == {SHELL, "text"}
    directory = make_readers_directory(tmp_path / "checkout", server.api_key)
    printed = run_as_reader(found, SHELL, directory, server.environment, {READERS_URL: server.base_url})
    shown = "".join(block.text for block in found if block.language in SHOWN_ONLY)
    # All that is printed is shown, in the same order.
    assert without_accidents(shown) == without_accidents(printed)
