"""The paths that texts get which could not be merged."""

import itertools
from collections.abc import Callable

from app.contract.limits import PATH_MAX_BYTES

SEGMENT_MAX_BYTES = 255
"""What Linux takes as a name."""


def conflict_path(path: str, label: str, is_taken: Callable[[str], bool]) -> str:
    """`/notes/today.md` with the label `8f3k` gives `/notes/today.conflict-8f3k.md`.

    A path that is taken gets `-2`, `-3` and so on behind the label; a name that would be too long is shortened.
    """
    directory, _, name = path.rpartition("/")
    stem, dot, extension = name.rpartition(".")
    if not stem:  # no extension, or a name such as `.profile`
        stem, dot, extension = name, "", ""
    room = min(SEGMENT_MAX_BYTES, PATH_MAX_BYTES - len(directory.encode()) - 1)
    for number in itertools.count(1):
        mark = f".conflict-{label}" + ("" if number == 1 else f"-{number}")
        ending = mark + dot + extension
        if len(ending.encode()) > room - 1:
            ending = mark
        kept = stem.encode()[: max(1, room - len(ending.encode()))].decode(errors="ignore")
        candidate = f"{directory}/{kept}{ending}"
        if not is_taken(candidate):
            return candidate
    raise AssertionError("numbers do not end")
