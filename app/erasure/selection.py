"""What somebody wants to be forgotten, as it is asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from app.contract import paths
from app.contract.errors import InvalidRequest
from app.contract.limits import METADATA_MAX_PAIRS
from app.erasure.folding import Folded


class Spelling(NamedTuple):
    """What the one who asks calls the parts of a selection."""

    store_ids: str = "--store"
    where: str = "--where"
    path_prefix: str = "--path-prefix"
    contains: str = "--contains"


OPTIONS = Spelling()
"""Those of `memstore forget`."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What to erase. Stores alone: these stores, whole. With a path or a text: the memories in them that match.

    A memory is matched by any of its versions, and goes with all of them. A text, without a path, also chooses the
    stores that have it in their name, description or metadata, whole; and, where no stores are named, what has it
    around the memories (`app.erasure.labels`).
    """

    store_ids: Sequence[str] = ()
    where: Mapping[str, str] = field(default_factory=dict)
    """Pairs that a store's metadata must all have, exact but for the canonical form of Unicode."""
    path_prefix: str | None = None
    """A memory's path, or the directory that it is below."""
    contains: str | None = None
    """A text in the path or the content, in any spelling (`app.erasure.folding`)."""
    workspace: str | None = None
    """The name of the only workspace to look in."""
    spelling: Spelling = OPTIONS

    @property
    def wants_memories(self) -> bool:
        """Whether memories are the subject, not whole stores."""
        return self.path_prefix is not None or self.contains is not None

    @property
    def wants_everything(self) -> bool:
        """Whether nothing but a workspace confines it."""
        return not self.store_ids and not self.where and self.path_prefix is None

    def check(self) -> "Selection":
        """The selection itself, if it selects anything at all.

        Raises:
            InvalidRequest: it names nothing to look for, or something that can't be.

        """
        if not (self.store_ids or self.where or self.wants_memories):
            raise InvalidRequest("nothing is selected; say what to forget with {}, {}, {} or {}".format(*self.spelling))
        if len(self.where) > METADATA_MAX_PAIRS:
            raise InvalidRequest(
                f"{self.spelling.where}: has {len(self.where):,} pairs; a store has at most {METADATA_MAX_PAIRS}"
            )
        if self.contains is not None and Folded(self.contains).is_empty:
            raise InvalidRequest(
                f"{self.spelling.contains}: is empty, which every memory contains; give the text to look for"
            )
        if self.path_prefix is not None and self.path_prefix != "/":
            paths.check(self.path_prefix.removesuffix("/"), self.spelling.path_prefix)
        return self

    def matches_path(self, path: str) -> bool:
        """Whether a path is the wanted one or below it."""
        prefix = self.path_prefix
        if prefix is None:
            return True
        return path == prefix or path.startswith(prefix.removesuffix("/") + "/")


def parse_where(pairs: Sequence[str]) -> dict[str, str]:
    """`key=value` texts as pairs.

    Raises:
        InvalidRequest: one has no `=`, or a key has two values, which no store can have.

    """
    found: dict[str, str] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise InvalidRequest(f"--where: {pair!r} is not of the form key=value, such as user=u_123")
        if found.setdefault(key, value) != value:
            raise InvalidRequest(f"--where: {key!r} is given two values, and a store has one; run the command for each")
    return found
