"""Listings of directories."""

import errno
import itertools
from typing import TypeAlias

from app.mount.fuse.filesystem.answering import find_node
from app.mount.fuse.filesystem.nodes import AnyNode, Directory, Tree
from app.mount.fuse.filesystem.survival import Survival
from app.mount.fuse.kernel import protocol
from app.mount.fuse.kernel.protocol import Feature, FileType, OpenFlag
from app.mount.fuse.kernel.requests import Reply, Request

_NO_LOOKUP = bytes(128)
"""The entry of `.` and `..` in a listing with attributes: the kernel takes none."""

_READ = protocol.READ_IN.unpack_from

_Listed: TypeAlias = tuple[AnyNode | None, int, int, FileType, bytes]
"""One line of a listing: the node (None: `.` or `..`), its number, its cookie, its type and its name."""


class Listings:
    """OPENDIR, READDIR and READDIRPLUS of one mount."""

    def __init__(self, tree: Tree, survival: Survival) -> None:
        self.tree = tree
        self.survival = survival
        self.features = Feature(0)
        """What was agreed with the kernel."""

    def opendir(self, request: Request) -> Reply:
        """Listings have no state here: the kernel need not open them if it can do without."""
        if self.features & Feature.NO_OPENDIR_SUPPORT:
            return errno.ENOSYS  # the kernel never asks again, and caches listings
        return protocol.open_out(0, OpenFlag.CACHE_DIR | OpenFlag.KEEP_CACHE)

    def readdir(self, request: Request) -> Reply:
        """Names alone."""
        return self._list(request, plus=False)

    def readdirplus(self, request: Request) -> Reply:
        """Names with attributes: the kernel knows the nodes from then on, as after a lookup of each."""
        return self._list(request, plus=True)

    def _list(self, request: Request, *, plus: bool) -> Reply:
        _, offset, size, *_ = _READ(request.body)
        directory = find_node(self.tree, request.nodeid)
        if not isinstance(directory, Directory):
            return errno.ENOTDIR
        learned: list[AnyNode] = []
        answer = self._records(directory, offset, size, plus=plus, learned=learned)
        if learned:
            self.survival.nodes(learned)
        return answer

    def _records(self, directory: Directory, offset: int, size: int, *, plus: bool, learned: list[AnyNode]) -> bytes:
        """Up to `size` bytes of an answer from `offset` on.

        learned: gets the nodes that the kernel did not know before.

        Offsets are cookies that grow with each name, so that a name removed while somebody reads on moves no other.
        """
        records: list[bytes] = []
        total = 0
        for node, number, cookie, kind, name in _entries(directory, offset):
            if plus:
                entry = _NO_LOOKUP if node is None else self.tree.entry_of(node)
                record = protocol.direntplus(entry, number, cookie, kind, name)
            else:
                record = protocol.dirent(number, cookie, kind, name)
            total += len(record)
            if total > size:
                break
            if plus and node is not None:
                node.lookups += 1
                if node.lookups == 1:
                    learned.append(node)
            records.append(record)
        return b"".join(records)


def _entries(directory: Directory, offset: int) -> "itertools.chain[_Listed]":
    above = directory.parent or directory
    dots: list[_Listed] = [
        (None, directory.id, 1, FileType.DIRECTORY, b"."),
        (None, above.id, 2, FileType.DIRECTORY, b".."),
    ]
    children = (
        (node, node.id, node.cookie, FileType.DIRECTORY if type(node) is Directory else FileType.REGULAR, name)
        for name, node in list(directory.children.items())
        if node.cookie > offset
    )
    return itertools.chain(dots[offset:], children)
