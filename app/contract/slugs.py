"""From a store's name to the directory it is mounted at (contract, 1.7): no I/O.

A directory's name is a slug: lower-case ASCII letters and digits, and single hyphens between them.
"""

import itertools
import re
from collections.abc import Iterable

from app.contract.limits import FILE_NAME_MAX_BYTES

MOUNT_ROOT = "/mnt/memory"

_SEPARATORS = re.compile(r"[^a-z0-9]+")
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def slug(name: str, store_id: str) -> str:
    """The slug of a name; of the store's ID, where the name has no ASCII letter or digit."""
    return _SEPARATORS.sub("-", name.lower()).strip("-") or _SEPARATORS.sub("-", store_id.lower()).strip("-")


def is_slug(text: str) -> bool:
    """Whether a text can be the slug of a store: it then names a directory, and nothing but that."""
    return len(text) <= FILE_NAME_MAX_BYTES and _SLUG.fullmatch(text) is not None


def distinct(stores: Iterable[tuple[str, str]]) -> list[str]:
    """A slug for each store of one session, given as (name, ID) in the order of attachment.

    The second one with the same slug gets `-2`, the third `-3`; none is longer than a file's name may be.
    """
    chosen: list[str] = []
    for name, store_id in stores:
        base = slug(name, store_id)
        candidates = (_numbered(base, number) for number in itertools.count(1))
        chosen.append(next(candidate for candidate in candidates if candidate not in chosen))
    return chosen


def mount_path(directory: str) -> str:
    """Where an agent finds a store: `/mnt/memory/<slug>`, without a slash at the end."""
    return f"{MOUNT_ROOT}/{directory}"


def _numbered(base: str, number: int) -> str:
    suffix = "" if number == 1 else f"-{number}"
    return base[: FILE_NAME_MAX_BYTES - len(suffix)].rstrip("-") + suffix
