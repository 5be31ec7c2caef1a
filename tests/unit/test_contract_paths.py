"""Paths of memories: every rule of the contract (2.3, 2.4, 2.8), and the two questions about neighbours."""

import unicodedata
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from app.contract import paths
from app.contract.errors import InvalidRequest

FORBIDDEN_CATEGORIES: Final = ("Cc", "Cf", "Cs")
SEPARATORS = "\u2028\u2029"

harmless = st.characters(exclude_categories=FORBIDDEN_CATEGORIES, exclude_characters="/" + SEPARATORS)
segments = st.text(harmless, min_size=1, max_size=8).filter(lambda segment: segment not in (".", ".."))
# Few and short names, so that paths meet each other.
neighbours = st.lists(st.sampled_from(["a", "b", "a0", "a.", "a-", "ä"]), min_size=1, max_size=4).map(
    lambda names: "/" + "/".join(names)
)


@st.composite
def good_paths(draw: st.DrawFn) -> str:
    """Paths that keep every rule by the way they are made."""
    path = unicodedata.normalize("NFC", "/" + "/".join(draw(st.lists(segments, min_size=1, max_size=20))))
    assume(len(path.encode()) <= 1_024)
    return path


def keeps_every_rule(path: str) -> bool:
    """The rules once more, each in the contract's own words."""
    names = path.split("/")[1:]
    return (
        path.startswith("/")
        and 1 <= len(names) <= 20
        and all(name not in ("", ".", "..") for name in names)
        and not any(unicodedata.category(character) in FORBIDDEN_CATEGORIES for character in path)
        and not any(character in SEPARATORS for character in path)
        and unicodedata.normalize("NFC", path) == path
        and len(path.encode()) <= 1_024
    )


def refusal_of(check: Callable[[str], str], text: str) -> str | None:
    """The message of the refusal; None if the text is accepted, and then unchanged."""
    try:
        assert check(text) == text
    except InvalidRequest as refusal:
        return refusal.message
    return None


def accepts(path: str) -> bool:
    told = refusal_of(paths.check, path)
    assert told is None or told.startswith("path: ")
    return told is None


def accepts_prefix(prefix: str) -> bool:
    told = refusal_of(paths.check_prefix, prefix)
    assert told is None or told.startswith("path_prefix: ")
    return told is None


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("", "must start with '/'"),
        ("a", "must start with '/'"),
        ("a/b", "must start with '/'"),
        ("\\a", "must start with '/'"),
        ("/", "must start with '/'"),
        ("//", "empty segment"),
        ("//a", "empty segment"),
        ("/a//b", "empty segment"),
        ("/a/", "empty segment"),
        ("/.", "'.'"),
        ("/a/./b", "'.'"),
        ("/..", "'..'"),
        ("/a/..", "'..'"),
        ("/a\0", "U+0000, a control character"),
        ("/a\n", "U+000A, a control character"),
        ("/\x7f", "U+007F, a control character"),
        ("/\x85", "U+0085, a control character"),
        ("/a\u200d", "U+200D, a format character"),
        ("/\ufeffa", "U+FEFF, a format character"),
        ("/\u00ad", "U+00AD, a format character"),
        ("/\u202e", "U+202E, a format character"),
        ("/\U000e0041", "U+E0041, a format character"),
        ("/a\u2028b", "U+2028, a line separator"),
        ("/a\u2029b", "U+2029, a paragraph separator"),
        ("/\ud800", "lone surrogates"),
        ("/e\u0301", "Normalization Form C"),
        ("/\u212b", "Normalization Form C"),
        ("/" + "a/" * 20 + "a", "21 segments"),
        ("/" + "a" * 1_024, "1,025 bytes"),
        ("/" + "ä" * 512, "1,025 bytes"),
    ],
)
def test_a_path_that_breaks_a_rule_is_refused_with_the_rule(path: str, told: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        paths.check(path)
    assert told in refusal.value.message
    assert refusal.value.message.startswith("path: ")


@pytest.mark.parametrize(
    "path",
    [
        "/a",
        "/...",
        "/.hidden",
        "/a..b/..c/d..",
        "/with space /and more",
        "/back\\slash",
        '/~:*?"<>|',
        "/%2F",
        "/日本語/メモ.md",
        "/\U0001f9e0",
        "/caf\u00e9",
        "/\u00a0",
        "/" + "/".join("a" * 20),
        "/" + "a" * 1_023,
        "/" + "ä" * 511 + "a",
        "/.anthropic-memory-store",
    ],
)
def test_a_path_at_the_edge_of_the_rules_is_accepted(path: str) -> None:
    assert paths.check(path) == path


@given(good_paths())
def test_a_path_that_keeps_every_rule_is_accepted_unchanged(path: str) -> None:
    assert paths.check(path) == path


@given(st.text(st.characters(), max_size=12).map(lambda text: "/" + text) | st.text(st.characters(), max_size=12))
@example("/\u1100\u1161")
def test_any_text_is_accepted_exactly_if_it_keeps_every_rule(text: str) -> None:
    try:
        expected = keeps_every_rule(text)
    except UnicodeEncodeError:
        expected = False
    assert accepts(text) == expected


@given(good_paths())
def test_every_path_with_a_slash_at_its_end_is_a_prefix(path: str) -> None:
    assert paths.check_prefix(path + "/") == path + "/"


@pytest.mark.parametrize("prefix", ["a/", "/a", "//", "/a//", "/../", "/\0/", "/e\u0301/", "/" + "a/" * 21])
def test_a_prefix_that_cuts_a_segment_or_breaks_a_rule_is_refused(prefix: str) -> None:
    assert not accepts_prefix(prefix)


def test_the_empty_prefix_of_a_listing_is_the_whole_store_and_an_empty_directory_is_refused() -> None:
    assert paths.check_prefix("") == "/"
    with pytest.raises(InvalidRequest, match="from: must start and end with '/'"):
        paths.check_directory("", "from")


@pytest.mark.parametrize(
    ("prefix", "example"),
    [("/howto", "/howto/"), ("how/to", "/how/to/"), ("", "/notes/"), ("a\x1b", "/notes/"), ("a" * 81, "/notes/")],
)
def test_a_refused_directory_is_told_as_it_would_be_right(prefix: str, example: str) -> None:
    with pytest.raises(InvalidRequest, match=f"such as '{example}'$"):
        paths.check_directory(prefix, "path_prefix")


@given(st.text(st.sampled_from("/a.\0ä"), min_size=1, max_size=8))
def test_a_prefix_is_the_root_or_a_path_and_a_slash(prefix: str) -> None:
    assert accepts_prefix(prefix) == (prefix == "/" or (prefix.endswith("/") and accepts(prefix[:-1])))


@given(good_paths())
def test_the_ancestors_are_the_beginnings_before_each_slash(path: str) -> None:
    assert paths.ancestors(path) == [path[:end] for end in range(1, len(path)) if path[end] == "/"]


@given(st.sets(neighbours), neighbours)
def test_a_subtree_is_the_paths_that_begin_with_the_directory(stored: set[str], directory: str) -> None:
    for prefix in (directory + "/", "/"):
        start, end = (bound.encode() for bound in paths.subtree(prefix))
        assert {path for path in stored if start <= path.encode() < end} == {
            path for path in stored if path.startswith(prefix)
        }


@given(good_paths(), good_paths())
def test_one_path_is_below_another_in_the_eyes_of_both_questions_or_of_none(one: str, other: str) -> None:
    for upper, lower in ((one, other), (one, one + "/" + other[1:])):
        start, end = (bound.encode() for bound in paths.subtree(upper + "/"))
        assert (upper in paths.ancestors(lower)) == (start <= lower.encode() < end)
