"""Page cursors: what was encoded comes back, and nothing else is taken for a cursor."""

import base64
import json
import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from app.contract import cursors
from app.contract.errors import InvalidRequest

Listing = tuple[str | int | bool | None, ...]
Shape = tuple[type[str] | type[int], ...]

LISTING: Listing = ("memories", "memstore_1", "/", 0)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

storable_texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
storable_numbers = st.integers(-(2**63) + 1, 2**63 - 1)
keys = st.lists(storable_texts | storable_numbers, min_size=1, max_size=3)
listings = st.lists(st.text(max_size=5) | st.integers() | st.booleans() | st.none(), max_size=4).map(tuple)


json_values = st.recursive(st.none() | st.floats() | st.integers() | st.text(), st.lists)
bodies = st.binary(max_size=40) | json_values.map(json.dumps).map(str.encode)


def shape_of(key: list[str | int]) -> Shape:
    return tuple(str if isinstance(part, str) else int for part in key)


def is_refused(cursor: str, shape: Shape, listing: Listing = LISTING) -> bool:
    """Any exception but the one for the caller is an error of the test."""
    try:
        cursors.decode(listing, cursor, shape)
    except InvalidRequest as refusal:
        return refusal.message.startswith("page: ")
    return False


def raw(cursor: str) -> bytes:
    """The bytes behind a cursor, spelled in whatever way."""
    text = cursor.removeprefix("page_").replace("+", "-").replace("/", "_").rstrip("=")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def forged(body: bytes) -> str:
    """A cursor with a right check sum, which is no secret, around any body."""
    check = cursors._check_sum(LISTING, body)
    return "page_" + base64.urlsafe_b64encode(check + body).decode().rstrip("=")


@given(listings, keys)
def test_a_cursor_gives_its_key_back_to_the_same_listing(listing: Listing, key: list[str | int]) -> None:
    assert cursors.decode(listing, cursors.encode(listing, key), shape_of(key)) == key


@given(keys)
def test_a_cursor_fits_into_a_url_as_it_is(key: list[str | int]) -> None:
    assert re.fullmatch(r"page_[A-Za-z0-9_-]+", cursors.encode(LISTING, key))


@given(listings, listings, keys)
def test_a_cursor_is_refused_by_another_listing_and_with_other_filters(
    listing: Listing, other: Listing, key: list[str | int]
) -> None:
    assume(json.dumps(listing) != json.dumps(other))
    assert is_refused(cursors.encode(listing, key), shape_of(key), other)


@given(keys, keys)
def test_a_cursor_is_refused_where_keys_have_another_shape(key: list[str | int], other: list[str | int]) -> None:
    assume(shape_of(key) != shape_of(other))
    assert is_refused(cursors.encode(LISTING, key), shape_of(other))


@given(keys, st.data())
def test_a_cursor_with_one_character_changed_is_refused(key: list[str | int], data: st.DataObject) -> None:
    cursor = cursors.encode(LISTING, key)
    place = data.draw(st.integers(0, len(cursor) - 1))
    character = data.draw(st.sampled_from(ALPHABET) | st.characters())
    changed = cursor[:place] + character + cursor[place + 1 :]
    # The last character may hold bits that no byte uses: another spelling of the same cursor.
    same = changed == cursor or (place >= len("page_") and character in ALPHABET + "+/" and raw(changed) == raw(cursor))
    assert is_refused(changed, shape_of(key)) != same


@given(keys, st.data())
def test_a_cursor_cut_short_or_made_longer_is_refused(key: list[str | int], data: st.DataObject) -> None:
    cursor = cursors.encode(LISTING, key)
    assert is_refused(cursor[: data.draw(st.integers(0, len(cursor) - 1))], shape_of(key))
    assert is_refused(cursor + data.draw(st.text(ALPHABET, min_size=1)), shape_of(key))
    assert is_refused(data.draw(st.characters()) + cursor, shape_of(key))


@given(st.text(st.characters()) | st.text(st.characters()).map(lambda text: "page_" + text))
@example("page_")
@example("page_=")
@example("page_A")
@example("page_é")
@example("page_\ud800")
def test_any_other_text_is_refused(text: str) -> None:
    assert is_refused(text, (str,))


@given(bodies)
@example(b"")
@example(b"null")
@example(b'"text"')
@example(b'{"a": 1}')
@example(b"[true]")
@example(b"[1.0]")
@example(b"[NaN]")
@example(b"[1e999]")
@example(b"[" + b"9" * 5_000 + b"]")
@example(b'\xff\xfe["a"]')
@example(b'["a", "b"]')
def test_a_forged_cursor_is_refused_or_holds_a_key_of_the_right_shape(body: bytes) -> None:
    for shape in ((str,), (int,), (int, str)):
        try:
            key = cursors.decode(LISTING, forged(body), shape)
        except InvalidRequest:
            continue
        assert tuple(type(part) for part in key) == shape


def test_a_forged_cursor_nested_too_deeply_is_refused() -> None:
    assert is_refused(forged(b"[" * 100_000), (str,))


@pytest.mark.parametrize("part", ["a\0b", "a\ud800", 2**63, -(2**63), 10**30])
def test_a_forged_cursor_with_a_value_that_no_database_takes_is_refused(part: str | int) -> None:
    assert is_refused(forged(json.dumps([part]).encode()), (type(part),))
