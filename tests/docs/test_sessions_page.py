"""The page about sessions: its example is run, and answers as the page shows."""

import re
from pathlib import Path

import pytest

from app.contract import limits
from tests.docs.blocks import PROJECT, READERS_URL, SHELL, blocks, make_readers_directory, run_as_reader
from tests.support.servers import Server

pytestmark = pytest.mark.any_backend

PAGE = "docs/reference/sessions.md"
SHOWN = "text"


def without_accidents(text: str) -> str:
    """The text without what differs each time: IDs."""
    return re.sub(r"\b([a-z]+)_01\w{22}", r"\1_01…", text)


def test_the_example_prints_what_the_page_shows(server: Server, tmp_path: Path) -> None:
    found = blocks(PAGE)
    directory = make_readers_directory(tmp_path / "checkout", server.api_key)
    printed = run_as_reader(found, SHELL, directory, server.environment, {READERS_URL: server.base_url})
    shown = [block.text for block in found if block.language == SHOWN]
    assert shown
    for text in shown:
        assert without_accidents(text).strip() in without_accidents(printed)


def test_the_page_has_the_limits_of_the_contract() -> None:
    text = (PROJECT / PAGE).read_text(encoding="utf-8")
    day = 24 * 60 * 60
    assert f"at most {limits.SESSION_MAX_STORES}, each once" in text
    assert f"{limits.INSTRUCTIONS_MAX_CHARACTERS:,} characters" in text
    assert f"{limits.SESSION_TOKEN_SECONDS_MIN} seconds to {limits.SESSION_TOKEN_SECONDS_MAX // day} days" in text
    hours = limits.SESSION_TOKEN_SECONDS_DEFAULT // (60 * 60)
    assert f"{hours} hours if you don't say" in text
