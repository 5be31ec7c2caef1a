"""A store's name, description and metadata (contract, 1.3)."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contract import text
from app.contract.errors import InvalidRequest

any_text = st.text(st.characters(), max_size=6)
# Few keys, so that a patch meets what is there.
keys = st.sampled_from(["a", "b", "c", "", "x" * 64, "x" * 65, "k\0"])
values = st.sampled_from(["", "one", "two", "x" * 512, "x" * 513, "\0"])
good_keys = st.sampled_from([*"abcdefghijklmnopqrstuvwxyz", "x" * 64])
good_values = st.sampled_from(["", "one", "two\n", "x" * 512])


def is_storable(value: str) -> bool:
    return "\0" not in value and not any(unicodedata.category(character) == "Cs" for character in value)


def is_good(metadata: dict[str, str]) -> bool:
    return len(metadata) <= 16 and all(
        1 <= len(key) <= 64 and len(value) <= 512 and is_storable(key) and is_storable(value)
        for key, value in metadata.items()
    )


@pytest.mark.parametrize("name", ["x", " ", "x" * 255, "\U0001f9e0" * 255, "Café", "a\u200db", "e\u0301"])
def test_a_name_of_1_to_255_characters_is_kept_as_it_came(name: str) -> None:
    assert text.check_name(name) == name


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "0 characters"),
        ("x" * 256, "256 characters"),
        ("a\nb", "control character"),
        ("\x7f", "control character"),
        ("\x85", "control character"),
        ("\0", "U+0000"),
        ("\ud800", "lone surrogates"),
    ],
)
def test_a_name_that_breaks_a_rule_is_refused_with_the_rule(name: str, told: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^name: ") as refusal:
        text.check_name(name)
    assert told in refusal.value.message


@given(any_text)
def test_a_name_is_accepted_exactly_if_it_is_storable_and_has_no_control_characters(name: str) -> None:
    good = name != "" and is_storable(name) and not any(unicodedata.category(one) == "Cc" for one in name)
    try:
        assert text.check_name(name) == name
    except InvalidRequest:
        assert not good
    else:
        assert good


@pytest.mark.parametrize("description", ["", "x" * 1_024, "two\nlines\tand a tab", "\U0001f9e0" * 1_024])
def test_a_description_of_up_to_1024_characters_is_kept_as_it_came(description: str) -> None:
    assert text.check_description(description) == description


@pytest.mark.parametrize("description", ["x" * 1_025, "\0", "a\udc00"])
def test_a_description_that_breaks_a_rule_is_refused(description: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^description: "):
        text.check_description(description)


@given(st.dictionaries(keys | good_keys, values | good_values, max_size=20))
def test_metadata_is_accepted_unchanged_exactly_if_it_keeps_every_limit(metadata: dict[str, str]) -> None:
    try:
        assert text.check_metadata(metadata) == metadata
    except InvalidRequest:
        assert not is_good(metadata)
    else:
        assert is_good(metadata)


@pytest.mark.parametrize("count", [15, 16, 17])
def test_metadata_has_at_most_16_pairs(count: int) -> None:
    metadata = {f"key-{number}": "" for number in range(count)}
    if count <= 16:
        assert text.check_metadata(metadata) == metadata
    else:
        with pytest.raises(InvalidRequest, match="17 pairs; at most 16"):
            text.check_metadata(metadata)


@given(
    st.dictionaries(good_keys, good_values, max_size=16),
    st.dictionaries(good_keys | keys, good_values | st.none() | values, max_size=8),
)
def test_a_patch_sets_strings_removes_nulls_and_keeps_the_rest(
    current: dict[str, str], patch: dict[str, str | None]
) -> None:
    before = dict(current)
    expected = {key: value for key, value in {**current, **patch}.items() if value is not None}
    try:
        assert text.merge_metadata(current, patch) == expected
    except InvalidRequest:
        assert not is_good(expected)
    else:
        assert is_good(expected)
    assert current == before


def test_the_16_pairs_are_counted_after_the_patch() -> None:
    full = {f"key-{number}": "" for number in range(16)}
    swapped = text.merge_metadata(full, {"key-0": None, "another": "one"})
    assert len(swapped) == 16
    with pytest.raises(InvalidRequest, match="17 pairs"):
        text.merge_metadata(full, {"another": "one"})


@given(st.dictionaries(good_keys, good_values, max_size=16))
def test_an_empty_patch_changes_nothing(current: dict[str, str]) -> None:
    assert text.merge_metadata(current, {}) == current
