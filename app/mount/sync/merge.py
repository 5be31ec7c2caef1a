"""Three texts become one, line by line; pure.

Lines end with a line feed, and nothing else does. A merge is clean or there is none: no line that either side
added is missing from a clean one.
"""

from difflib import SequenceMatcher

_MAX_COMPARISONS = 2_000_000
"""Above this many pairs of equal lines, lines that are everywhere are not looked at: it would take seconds."""


def merge(base: bytes, ours: bytes, theirs: bytes) -> bytes | None:
    """One text with what both sides did to `base`; None if that takes a person.

    Where all of our edits are appended lines, they follow what the others wrote; the reverse likewise. Else
    the edits must be in different places, with at least one line between them that nobody touched.
    """
    if ours in (theirs, base):
        return theirs
    if theirs == base:
        return ours
    tail = _appended(base, ours)
    if tail is not None:
        return _joined(theirs, tail)
    merged = _merge_lines(_lines(base), _lines(ours), _lines(theirs))
    if merged is not None:
        return merged
    tail = _appended(base, theirs)
    return None if tail is None else _joined(ours, tail)


def _appended(base: bytes, text: bytes) -> bytes | None:
    """The whole lines that `text` has after `base`; None if it changed anything else."""
    if not text.startswith(base):
        return None
    tail = text[len(base) :]
    if not base or base.endswith(b"\n"):
        return tail
    # Here the first byte only ends the base's last line; without it that line was continued, which is no append.
    return tail[1:] if tail.startswith(b"\n") else None


def _joined(text: bytes, tail: bytes) -> bytes:
    needs_end = tail and text and not text.endswith(b"\n")
    return text + b"\n" + tail if needs_end else text + tail


def _lines(text: bytes) -> list[bytes]:
    parts = text.split(b"\n")
    lines = [part + b"\n" for part in parts[:-1]]
    return [*lines, parts[-1]] if parts[-1] else lines


def _merge_lines(base: list[bytes], ours: list[bytes], theirs: list[bytes]) -> bytes | None:
    merged: list[bytes] = []
    at_base = at_ours = at_theirs = 0
    for base_start, ours_start, theirs_start, length in _unchanged(base, ours, theirs):
        was = base[at_base:base_start]
        mine = ours[at_ours:ours_start]
        other = theirs[at_theirs:theirs_start]
        if mine in (other, was):
            merged += other
        elif other == was:
            merged += mine
        else:
            return None
        merged += base[base_start : base_start + length]
        at_base, at_ours, at_theirs = base_start + length, ours_start + length, theirs_start + length
    return b"".join(merged)


def _unchanged(base: list[bytes], ours: list[bytes], theirs: list[bytes]) -> list[tuple[int, int, int, int]]:
    """Runs of base lines that both sides kept: starts in base, ours and theirs, and length; then the three ends."""
    regions = []
    mine, others = _matches(base, ours), _matches(base, theirs)
    i = j = 0
    while i < len(mine) and j < len(others):
        base_mine, at_mine, length_mine = mine[i]
        base_other, at_other, length_other = others[j]
        start = max(base_mine, base_other)
        end = min(base_mine + length_mine, base_other + length_other)
        if start < end:
            regions.append((start, at_mine + start - base_mine, at_other + start - base_other, end - start))
        if base_mine + length_mine < base_other + length_other:
            i += 1
        else:
            j += 1
    return [*regions, (len(base), len(ours), len(theirs), 0)]


def _matches(base: list[bytes], other: list[bytes]) -> list[tuple[int, int, int]]:
    """Runs of equal lines, ascending on both sides: start in base, start in other, length."""
    most = min(len(base), len(other))
    head = 0
    while head < most and base[head] == other[head]:
        head += 1
    tail = 0
    while tail < most - head and base[-1 - tail] == other[-1 - tail]:
        tail += 1
    base_middle, other_middle = base[head : len(base) - tail], other[head : len(other) - tail]
    runs = [(0, 0, head)]
    matcher = SequenceMatcher(None, base_middle, other_middle, autojunk=_is_repetitive(base_middle, other_middle))
    runs += [(head + match.a, head + match.b, match.size) for match in matcher.get_matching_blocks()]
    runs.append((len(base) - tail, len(other) - tail, tail))
    return [run for run in runs if run[2]]


def _is_repetitive(one: list[bytes], other: list[bytes]) -> bool:
    counts: dict[bytes, int] = {}
    for line in one:
        counts[line] = counts.get(line, 0) + 1
    return sum(counts.get(line, 0) for line in other) > _MAX_COMPARISONS
