"""Slugs: what directory a store's name becomes, and that no two stores of a session share one."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contract import ids
from app.contract.slugs import distinct, mount_path, slug

STORE = "memstore_01AbCdEfGhJkMnPqRsTuVwXy"
OWN_ID = "memstore-01abcdefghjkmnpqrstuvwxy"

names = st.text(min_size=1, max_size=255)
stores = st.lists(names, max_size=8).map(lambda made: [(name, ids.new(ids.STORE)) for name in made])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Shopper Preferences", "shopper-preferences"),
        ("already-a-slug", "already-a-slug"),
        ("v2.1 (draft)", "v2-1-draft"),
        ("a -- b", "a-b"),
        ("UPPER_case", "upper-case"),
        ("Café notes", "caf-notes"),
        ("!x!", "x"),
        ("  padded  ", "padded"),
        ("\u212a", "k"),  # the Kelvin sign is a K when it is lower-cased
        ("日本語", OWN_ID),
        ("---", OWN_ID),
        ("日本語 2", "2"),
    ],
)
def test_a_name_becomes_its_slug(name: str, expected: str) -> None:
    assert slug(name, STORE) == expected


def test_a_mount_path_has_no_slash_at_the_end() -> None:
    assert mount_path("user-preferences") == "/mnt/memory/user-preferences"


@pytest.mark.parametrize(
    ("given_names", "expected"),
    [
        (["Notes", "notes", "NOTES!"], ["notes", "notes-2", "notes-3"]),
        (["Notes", "Notes 2", "notes"], ["notes", "notes-2", "notes-3"]),
        (["Notes", "notes", "Notes 2"], ["notes", "notes-2", "notes-2-2"]),
        (["b", "a", "b"], ["b", "a", "b-2"]),
    ],
)
def test_equal_slugs_are_numbered_in_the_order_of_attachment(given_names: list[str], expected: list[str]) -> None:
    assert distinct([(name, STORE) for name in given_names]) == expected


def test_numbers_fit_behind_the_longest_name() -> None:
    first, second = distinct([("x" * 255, STORE), ("x" * 255, STORE)])
    assert first == "x" * 255
    assert second == "x" * 253 + "-2"
    # Lower-casing this letter makes two of it.
    assert len(slug("\u0130" * 255, STORE)) > 255
    assert len(distinct([("\u0130" * 255, STORE)])[0]) <= 255


@given(stores)
def test_the_slugs_of_a_session_are_distinct_names_of_files(attached: list[tuple[str, str]]) -> None:
    directories = distinct(attached)
    assert len(set(directories)) == len(directories) == len(attached)
    for directory in directories:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", directory)
        assert len(directory) <= 255


@given(stores)
def test_the_slugs_depend_on_nothing_but_names_and_ids(attached: list[tuple[str, str]]) -> None:
    assert distinct(attached) == distinct(list(attached))
    assert distinct(attached)[:3] == distinct(attached[:3])
