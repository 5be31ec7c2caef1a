"""Comparing two texts by lines: no I/O, and a bounded time for texts of that length, whatever they hold.

Small pieces are compared closely, as `difflib` does. Lines that are in both pieces exactly once anchor the comparison
of larger ones, again between the anchors. Both have a budget of steps for the two texts as a whole; what is left when
it is spent counts as replaced: comparing two texts of tens of thousands of lines that are all alike would otherwise
take hours.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Sequence
from difflib import Match as Block
from difflib import SequenceMatcher
from typing import AnyStr, TypeVar

_Line = TypeVar("_Line", bound=Hashable)

STEPS = 1_000_000
"""Pairs of equal lines that a comparison looks at, and lines that it counts: about 0.15 s of processor time."""
_CLOSE_CELLS = 40_000
"""Lines of one piece times lines of the other up to which they are compared closely; beyond it, without lines to
anchor at, only while there are at most as many pairs of equal lines."""
_ANCHOR_STEPS = 2
_CLOSE_STEPS = 2
"""What it takes to prepare the one and the other kind of comparison, in steps for each line."""

Match = tuple[int, int, int]
"""Where equal lines begin in the first and in the second text, from 0, and how many they are."""


def split(text: AnyStr) -> list[AnyStr]:
    """The lines of a text, each with its line feed; the last one may have none. Nothing else ends a line."""
    return _ended(text, b"\n") if isinstance(text, bytes) else _ended(text, "\n")


def _ended(text: AnyStr, end: AnyStr) -> list[AnyStr]:
    parts: list[AnyStr] = text.split(end)
    last = parts.pop()
    found: list[AnyStr] = [part + end for part in parts]
    if last:
        found.append(last)
    return found


class Steps:
    """What a comparison may still do. One step takes some 0.1 µs."""

    def __init__(self, count: int = STEPS) -> None:
        self.left = count

    def spend(self, count: int) -> bool:
        """Take so many steps, or none and answer False."""
        if count > self.left:
            return False
        self.left -= count
        return True


def matches(first: Sequence[_Line], second: Sequence[_Line], steps: Steps | None = None) -> list[Match]:
    """The equal lines of two texts, in order, neighbours joined. steps: `STEPS` if not given."""
    steps = steps or Steps()
    found: list[Match] = []
    pieces = [(0, len(first), 0, len(second))]
    while pieces:
        low, high, other_low, other_high = pieces.pop()
        size = min(high - low, other_high - other_low)
        start = 0
        while start < size and first[low + start] == second[other_low + start]:
            start += 1
        end = 0
        while end < size - start and first[high - end - 1] == second[other_high - end - 1]:
            end += 1
        found += [(low, other_low, start), (high - end, other_high - end, end)]
        low, high, other_low, other_high = low + start, high - end, other_low + start, other_high - end
        if low == high or other_low == other_high:
            continue
        is_small = (high - low) * (other_high - other_low) <= _CLOSE_CELLS
        anchors = []
        if not is_small and steps.spend(_ANCHOR_STEPS * (high - low + other_high - other_low)):
            anchors = _anchors(first, second, low, high, other_low, other_high)
        if anchors:
            at, other_at = low, other_low
            for anchor, other_anchor in anchors:
                pieces.append((at, anchor, other_at, other_anchor))
                found.append((anchor, other_anchor, 1))
                at, other_at = anchor + 1, other_anchor + 1
            pieces.append((at, high, other_at, other_high))
        elif steps.spend(_CLOSE_STEPS * (high - low + other_high - other_low)):
            close = _Close(first[low:high], second[other_low:other_high], steps)
            if is_small or close.pairs <= _CLOSE_CELLS:
                found += [(low + a, other_low + b, length) for a, b, length in close.get_matching_blocks()]
    return _joined(sorted(match for match in found if match[2]))


class _Close(SequenceMatcher[_Line]):
    """`difflib`'s comparison, which finds nothing more once its steps are spent."""

    def __init__(self, first: Sequence[_Line], second: Sequence[_Line], steps: Steps) -> None:
        super().__init__(None, first, second, autojunk=False)
        self._first = first
        self._counts = Counter(second)
        self._steps = steps
        self.pairs = self._pairs(first)

    def _pairs(self, piece: Sequence[_Line]) -> int:
        return sum(map(self._counts.__getitem__, piece))

    def find_longest_match(self, alo: int = 0, ahi: int | None = None, blo: int = 0, bhi: int | None = None) -> Block:
        """As the base class; it looks at every pair of equal lines of the piece."""
        piece = self._first[alo:ahi]
        if self._steps.spend(len(piece) + self._pairs(piece)):
            return super().find_longest_match(alo, ahi, blo, bhi)
        return Block(alo, blo, 0)


def _anchors(
    first: Sequence[_Line], second: Sequence[_Line], low: int, high: int, other_low: int, other_high: int
) -> list[tuple[int, int]]:
    """Lines that are in both pieces exactly once: the longest series in the same order in both."""
    counts, other_counts = Counter(first[low:high]), Counter(second[other_low:other_high])
    places = {second[place]: place for place in range(other_low, other_high)}
    pairs = [
        (place, places[first[place]])
        for place in range(low, high)
        if counts[first[place]] == 1 and other_counts[first[place]] == 1
    ]
    # The longest ascending series of the second numbers, by patience sorting.
    tops: list[int] = []
    piles: list[int] = []
    before: list[int] = []
    for number, (_, other) in enumerate(pairs):
        pile = bisect_left(tops, other)
        before.append(piles[pile - 1] if pile else -1)
        if pile == len(tops):
            tops.append(other)
            piles.append(number)
        else:
            tops[pile], piles[pile] = other, number
    series = []
    number = piles[-1] if piles else -1
    while number >= 0:
        series.append(pairs[number])
        number = before[number]
    return series[::-1]


def _joined(found: Sequence[Match]) -> list[Match]:
    joined: list[Match] = []
    for a, b, size in found:
        if joined and joined[-1][0] + joined[-1][2] == a and joined[-1][1] + joined[-1][2] == b:
            joined[-1] = (joined[-1][0], joined[-1][1], joined[-1][2] + size)
        else:
            joined.append((a, b, size))
    return joined
