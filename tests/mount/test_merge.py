"""Three texts become one and lose nothing, or there is no merge."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.mount.sync.merge import merge

# Few different lines, so that both sides often do the same, and lines repeat.
line = st.sampled_from([b"a", b"b", b"c", b"", b"d d", "é".encode(), b"x\rx", "p\u2028q".encode()])
texts = st.builds(
    lambda lines, end: b"\n".join(lines) + end, st.lists(line, max_size=12), st.sampled_from([b"", b"\n"])
)


def lines(text: bytes) -> Counter[bytes]:
    """The lines, without the last one where it is empty."""
    parts = text.split(b"\n")
    return Counter(parts if parts[-1] else parts[:-1])


@st.composite
def edited(draw: st.DrawFn) -> tuple[bytes, bytes, bytes]:
    """A base, and two texts that a few edits made of it."""
    base = draw(st.lists(line, max_size=12))

    def side() -> bytes:
        result = list(base)
        for _ in range(draw(st.integers(0, 3))):
            start = draw(st.integers(0, len(result)))
            end = draw(st.integers(start, min(len(result), start + 2)))
            result[start:end] = draw(st.lists(line, max_size=2))
        return b"".join(each + b"\n" for each in result)

    return b"".join(each + b"\n" for each in base), side(), side()


three = st.one_of(edited(), st.tuples(texts, texts, texts))


@given(texts, texts)
def test_one_unchanged_side_gives_way(base: bytes, other: bytes) -> None:
    assert merge(base, other, base) == other
    assert merge(base, base, other) == other


@given(texts, texts)
def test_the_same_edit_on_both_sides_is_made_once(base: bytes, other: bytes) -> None:
    assert merge(base, other, other) == other


@given(three)
@example((b"a\n", b"a\n\nb\n", b"a\nc\n"))
@example((b"a", b"a\nb\n", b"x"))
@example((b"", b"a", b"b"))
def test_no_line_that_a_side_added_is_lost(example: tuple[bytes, bytes, bytes]) -> None:
    base, ours, theirs = example
    merged = merge(base, ours, theirs)
    if merged is not None:
        for side in (ours, theirs):
            assert not (lines(side) - lines(base)) - lines(merged)


@given(three)
def test_no_line_comes_from_nowhere(example: tuple[bytes, bytes, bytes]) -> None:
    base, ours, theirs = example
    merged = merge(base, ours, theirs)
    if merged is not None:
        assert lines(merged).keys() <= lines(base).keys() | lines(ours).keys() | lines(theirs).keys()


@given(three)
def test_lines_keep_the_order_of_each_side_that_has_them_once(example: tuple[bytes, bytes, bytes]) -> None:
    base, ours, theirs = example
    merged = merge(base, ours, theirs)
    if merged is None:
        return
    found = lines(merged)
    for side in (ours, theirs):
        # Lines of the base may have been moved by one side, and then can't keep both orders.
        new = lines(side) - lines(base)
        added = [each for each in side.split(b"\n") if found[each] == lines(side)[each] == new[each] == 1 and each]
        places = [merged.split(b"\n").index(each) for each in added]
        assert all(first < second for first, second in pairwise(places))


@given(texts, texts, texts)
def test_what_we_only_appended_follows_what_they_wrote(base: bytes, tail: bytes, theirs: bytes) -> None:
    base = base if base.endswith(b"\n") else base + b"\n"
    merged = merge(base, base + tail, theirs)
    assert merged is not None
    if theirs not in (base, base + tail):
        assert merged.startswith(theirs)
        assert merged.endswith(tail)


@given(edited(), edited())
def test_edits_with_an_untouched_line_between_them_merge(
    one: tuple[bytes, bytes, bytes], other: tuple[bytes, bytes, bytes]
) -> None:
    middle = b"untouched\n"
    merged = merge(one[0] + middle + other[0], one[1] + middle + other[0], one[0] + middle + other[1])
    assert merged == one[1] + middle + other[1]


@pytest.mark.parametrize(
    ("base", "ours", "theirs"),
    [
        (b"a\nb\nc\n", b"a\nX\nc\n", b"a\nY\nc\n"),
        (b"a\nb\nc\n", b"a\nX\nc\n", b"a\nc\n"),
        (b"a\nb\nc\n", b"a\nX\nc\n", b"a\nb\nY\n"),
        (b"one", b"one more", b"one less"),
    ],
)
def test_edits_of_the_same_place_take_a_person(base: bytes, ours: bytes, theirs: bytes) -> None:
    assert merge(base, ours, theirs) is None


def test_a_large_text_of_equal_lines_merges() -> None:
    base = b"\n" * 102_000
    assert merge(base, b"ours\n" + base, base + b"theirs\n") == b"ours\n" + base + b"theirs\n"
    ours, theirs = b"x\n" + base[:60_000], base[:50_000] + b"y\n"
    merged = merge(base, ours, theirs)
    assert merged is None or {b"x", b"y"} <= lines(merged).keys()
