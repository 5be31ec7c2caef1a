"""What it takes to get from one text to another, in hunks of lines, as `diff -u` prints them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.contract.lines import matches

_CONTEXT = 3
"""Equal lines that are shown around a change."""


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
