"""Three texts become one and lose nothing, or there is no merge."""

import random
from collections import Counter
from difflib import SequenceMatcher
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


def plainly_merged(base: bytes, ours: bytes, theirs: bytes) -> bytes | None:
    """A three-way merge as slow and as short as it can be: every base line is kept by both sides, or it is not."""
    texts = [[line + b"\n" for line in text.split(b"\n")[:-1]] for text in (base, ours, theirs)]

    def kept(side: list[bytes]) -> dict[int, int]:
        head = next((n for n, pair in enumerate(zip(texts[0], side, strict=False)) if pair[0] != pair[1]), None)
        if head is None:
            return {n: n for n in range(min(len(texts[0]), len(side)))}
        most = min(len(texts[0]), len(side)) - head
        tail = next((n for n in range(most) if texts[0][-1 - n] != side[-1 - n]), most)
        ends = len(texts[0]) - tail, len(side) - tail
        middle = SequenceMatcher(None, texts[0][head : ends[0]], side[head : ends[1]], autojunk=False)
        found = {n: n for n in range(head)} | {ends[0] + n: ends[1] + n for n in range(tail)}
        for a, b, size in middle.get_matching_blocks():
            found |= {head + a + n: head + b + n for n in range(size)}
        return found

    mine, others = kept(texts[1]), kept(texts[2])
    places = [(n, mine[n], others[n]) for n in range(len(texts[0])) if n in mine and n in others]
    merged: list[bytes] = []
    at = (0, 0, 0)
    for place in [*places, tuple(map(len, texts))]:
        was, our, their = (text[start:end] for text, start, end in zip(texts, at, place, strict=True))
        if our not in (was, their) and their != was:
            return None
        merged += their if our == was else our
        merged += texts[0][place[0] : place[0] + 1]
        at = (place[0] + 1, place[1] + 1, place[2] + 1)
    return b"".join(merged)


@given(edited())
def test_small_texts_merge_as_a_plain_merge_would(example: tuple[bytes, bytes, bytes]) -> None:
    base, ours, theirs = example
    if not ours.startswith(base) and not theirs.startswith(base):  # appends have a rule of their own
        assert merge(base, ours, theirs) == plainly_merged(base, ours, theirs)


@pytest.mark.timeout(60)  # the comparison of these took 155 s and more
@pytest.mark.parametrize("kinds", [2, 30, 5_000])
def test_no_text_makes_a_merge_take_long(kinds: int) -> None:
    def text(seed: int) -> bytes:
        choice = random.Random(seed)
        return b"".join(b"%d\n" % choice.randrange(kinds) for _ in range(60_000))[:102_400]

    assert merge(text(1), text(2), text(3)) is None


def test_every_second_of_thousands_of_lines_may_change() -> None:
    base = [b"line %d\n" % number for number in range(4_000)]
    ours = [b"our " + line if number % 4 == 0 else line for number, line in enumerate(base)]
    theirs = [b"their " + line if number % 4 == 2 else line for number, line in enumerate(base)]
    both = [ours[number] if number % 4 == 0 else theirs[number] for number in range(4_000)]
    assert merge(b"".join(base), b"".join(ours), b"".join(theirs)) == b"".join(both)


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
