"""Comparing two texts by lines, in a time that stays bounded whatever the texts are.

Lines that are in both texts exactly once anchor the comparison, again between the anchors. What is left between them
is compared closely where it is small, and counts as replaced as a whole where it is not: comparing two texts of tens
of thousands of lines that are all alike would otherwise take minutes.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

_CLOSE_CELLS = 40_000
"""Lines of one text times lines of the other up to which they are compared closely."""
_DEEPEST = 32
"""How often anchors are looked for between anchors."""
_CONTEXT = 3
"""Equal lines that are shown around a change."""

Match = tuple[int, int, int]
"""Where equal lines begin in the first and in the second text, from 0, and how many they are."""


def split(text: str) -> list[str]:
    """The lines of a text, each with its line feed; the last one may have none. Nothing else ends a line."""
    lines = [line + "\n" for line in text.split("\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines


def matches(first: Sequence[str], second: Sequence[str]) -> list[Match]:
    """The equal lines of two texts, in order, neighbours joined."""
    found: list[Match] = []
    pieces = [(0, len(first), 0, len(second), 0)]
    while pieces:
        low, high, other_low, other_high, depth = pieces.pop()
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
        anchors = _anchors(first, second, low, high, other_low, other_high) if depth < _DEEPEST else []
        if anchors:
            at, other_at = low, other_low
            for anchor, other_anchor in anchors:
                pieces.append((at, anchor, other_at, other_anchor, depth + 1))
                found.append((anchor, other_anchor, 1))
                at, other_at = anchor + 1, other_anchor + 1
            pieces.append((at, high, other_at, other_high, depth + 1))
        elif (high - low) * (other_high - other_low) <= _CLOSE_CELLS:
            blocks = SequenceMatcher(None, first[low:high], second[other_low:other_high], autojunk=False)
            found += [(low + a, other_low + b, size) for a, b, size in blocks.get_matching_blocks()]
    return _joined(sorted(match for match in found if match[2]))


def _anchors(
    first: Sequence[str], second: Sequence[str], low: int, high: int, other_low: int, other_high: int
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


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a hunk; numbers count from 1, None on the side that does not have it. `text` has its line feed."""

    from_line: int | None
    to_line: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Hunk:
    """Lines that changed and three around them. A side's `start` is the line before it if its `count` is 0."""

    from_start: int
    from_count: int
    to_start: int
    to_count: int
    lines: Sequence[Line]


def hunks(first: Sequence[str], second: Sequence[str]) -> list[Hunk]:
    """What it takes to get from one text to the other."""
    changes: list[tuple[int, int, int, int]] = []
    at = other_at = 0
    for a, b, size in [*matches(first, second), (len(first), len(second), 0)]:
        if (a, b) != (at, other_at):
            changes.append((at, a, other_at, b))
        at, other_at = a + size, b + size
    return [_hunk(first, second, group) for group in _groups(changes)]


def _groups(changes: Sequence[tuple[int, int, int, int]]) -> Iterator[list[tuple[int, int, int, int]]]:
    group: list[tuple[int, int, int, int]] = []
    for change in changes:
        if group and change[0] - group[-1][1] > 2 * _CONTEXT:
            yield group
            group = []
        group.append(change)
    if group:
        yield group


def _hunk(first: Sequence[str], second: Sequence[str], group: Sequence[tuple[int, int, int, int]]) -> Hunk:
    before = min(_CONTEXT, group[0][0])
    after = min(_CONTEXT, len(first) - group[-1][1])
    at, other_at = group[0][0] - before, group[0][2] - before
    end, other_end = group[-1][1] + after, group[-1][3] + after
    lines: list[Line] = []
    place, other_place = at, other_at

    def context(until: int) -> None:
        nonlocal place, other_place
        while place < until:
            lines.append(Line(place + 1, other_place + 1, first[place]))
            place, other_place = place + 1, other_place + 1

    for low, high, other_low, other_high in group:
        context(low)
        lines += [Line(number + 1, None, first[number]) for number in range(low, high)]
        lines += [Line(None, number + 1, second[number]) for number in range(other_low, other_high)]
        place, other_place = high, other_high
    context(end)
    count, other_count = end - at, other_end - other_at
    return Hunk(at + (count > 0), count, other_at + (other_count > 0), other_count, lines)


def unified(found: Sequence[Hunk], from_name: str, to_name: str) -> str:
    """Hunks as `diff -u` prints them, and `patch` reads them; empty if there are none."""
    if not found:
        return ""
    parts = [f"--- {from_name}\n+++ {to_name}\n"]
    for hunk in found:
        sides = (_range(hunk.from_start, hunk.from_count), _range(hunk.to_start, hunk.to_count))
        parts.append(f"@@ -{sides[0]} +{sides[1]} @@\n")
        for line in hunk.lines:
            mark = "+" if line.from_line is None else "-" if line.to_line is None else " "
            parts.append(mark + line.text)
            if not line.text.endswith("\n"):
                parts.append("\n\\ No newline at end of file\n")
    return "".join(parts)


def _range(start: int, count: int) -> str:
    return str(start) if count == 1 else f"{start},{count}"
