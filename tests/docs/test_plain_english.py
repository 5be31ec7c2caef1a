"""What people read is plain English: phrases that make a native reader stumble stay out of pages, messages and code."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
READ = ("README.md", "CHANGELOG.md", "docs", "app", "scripts", "alembic")
"""What users read, and the docstrings and comments of what they may change."""

PHRASES = {
    r"\bany ?more\b": "write 'is gone', 'no longer' or 'now'",
    r"\b(?:can|can't|could|could not|to) be had\b|\bwas had\b": "write 'is available', 'works' or 'could be opened'",
    r"\bmend(?:s|ed|ing)?\b": "write 'fix' or 'repair'",
    r"\b[Ll]et(?:s|ting)? go\b": "write 'release', 'drop' or 'close'",
    r"\banew\b": "write 'again'",
    r"\bfor good\b": "write 'permanently'",
    r"\b[Ww]hoever\b": "name the caller, the process or the reader",
    r"(?:[.;:] |\"\"\")[Ww]ho (?!did |erased )\w+ [^?]*$": "name the caller, the process or the reader",
    r",? too[.;]": "write 'also' before the verb, or nothing",
    r"\bone's own\b": "write 'your own'",
    r"\b(?:is|are|good) no more\b": "write 'no longer'",
    r"(?:[.;] )[Aa]gain (?:changes|keeps|does) ": "an adverb is no subject: write 'Doing it twice changes nothing'",
}
"""Expressions, and what to write instead."""


def pages() -> Iterator[Path]:
    for name in READ:
        place = PROJECT / name
        if place.is_file():
            yield place
        else:
            yield from sorted(path for path in place.rglob("*") if path.suffix in (".md", ".py"))


@pytest.mark.parametrize("phrase", PHRASES)
def test_nothing_is_written_in_a_way_that_makes_a_reader_stumble(phrase: str) -> None:
    expression = re.compile(phrase)
    found = [
        f"{path.relative_to(PROJECT)}:{number}: {line.strip()}"
        for path in pages()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if expression.search(line)
    ]
    assert not found, "\n".join([PHRASES[phrase], *found])
