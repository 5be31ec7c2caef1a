"""Texts are compared by lines, in bounded time."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contract.lines import STEPS, Steps, matches, split


def rebuilt(first: list[str], second: list[str]) -> tuple[int, list[str]]:
    """How many lines are kept, and the second text put together from matches and the rest of it."""
    kept, result, at, last = 0, list[str](), 0, 0
    for a, b, size in matches(first, second):
        assert a >= last
        assert b >= at
        assert first[a : a + size] == second[b : b + size]
        result += second[at:b] + first[a : a + size]
        kept, at, last = kept + size, b + size, a + size
    return kept, result + second[at:]


LINES = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "d\n", "e\n", "\n"]), max_size=40)


@given(first=LINES, second=LINES)
def test_matches_are_equal_lines_in_order(first: list[str], second: list[str]) -> None:
    assert rebuilt(first, second)[1] == second


@pytest.mark.parametrize(
    ("first", "second", "least"),
    [
        (["\n"] * 51_200, ["x\n", *["\n"] * 51_198], 51_198),  # nothing to hold on to
        ([f"{n % 7}\n" for n in range(40_000)], [f"{n % 11}\n" for n in range(40_000)], 1),
        ([f"{n}\n" for n in range(10_000)], [f"{n}\n" for n in range(10_000) if n % 3], 6_666),
        ([f"{n}\n" for n in range(10_000)], [f"{n}\n" for n in reversed(range(10_000))], 1),
    ],
)
def test_long_texts_are_compared_too(first: list[str], second: list[str], least: int) -> None:
    kept, result = rebuilt(first, second)
    assert result == second
    assert kept >= least


@pytest.mark.parametrize(("gap", "kinds"), [(50, 2), (198, 2), (198, 40), (1_000_000, 2)])
def test_no_text_takes_more_steps_than_there_are(gap: int, kinds: int) -> None:
    def text(seed: int) -> list[bytes]:
        choice = random.Random(seed)
        return [b"%d\n" % choice.randrange(kinds) if n % gap else b"u%d\n" % n for n in range(20_000)]

    few, many = Steps(100_000), Steps(10**12)
    first, second = text(1), text(2)
    found, all_found = matches(first, second, few), matches(first, second, many)
    assert sum(size for _, _, size in found) <= sum(size for _, _, size in all_found)
    assert few.left >= 0
    if gap < 1_000_000:  # else there is nothing to hold on to, and it is given up at once
        assert len(found) < len(all_found)
    assert STEPS <= 1_000_000  # some 0.15 s


def test_a_line_ends_with_a_line_feed_alone() -> None:
    assert split("a\r\u2028b\n\nc") == ["a\r\u2028b\n", "\n", "c"]
    assert split(b"a\r\x0bb\n\nc\n") == [b"a\r\x0bb\n", b"\n", b"c\n"]
    assert split("") == []
