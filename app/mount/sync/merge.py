"""Three texts become one, line by line; pure.

Lines end with a line feed, and nothing else does. A merge is clean or there is none: no line that either side
added is missing from a clean one.
"""

from collections.abc import Sequence

from app.contract.lines import Match, matches, split


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
    merged = _merge_lines(split(base), split(ours), split(theirs))
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


def _merge_lines(base: list[bytes], ours: list[bytes], theirs: list[bytes]) -> bytes | None:
    merged: list[bytes] = []
    at_base = at_ours = at_theirs = 0
    ends = (len(base), len(ours), len(theirs), 0)
    for base_start, ours_start, theirs_start, length in [*_unchanged(matches(base, ours), matches(base, theirs)), ends]:
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


def _unchanged(mine: Sequence[Match], others: Sequence[Match]) -> list[tuple[int, int, int, int]]:
    """Runs of base lines that both sides kept: starts in base, ours and theirs, and length."""
    regions = []
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
    return regions
