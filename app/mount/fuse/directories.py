"""Listings, and which names may be made."""

import errno
import itertools
import os
import re

from app.contract import paths
from app.contract.errors import InvalidRequest
from app.contract.limits import PATH_MAX_BYTES, PATH_MAX_SEGMENTS
from app.mount.fuse import protocol
from app.mount.fuse.nodes import AnyNode, Directory, Tree
from app.mount.fuse.protocol import FileType
from app.mount.scratch import is_scratch

NAME_MAX = 255
"""Bytes of one name, as on any Linux filesystem."""

_NO_LOOKUP = bytes(128)
"""The entry of `.` and `..` in a listing with attributes: the kernel takes none."""

_RANDOM_END = re.compile(r"(?:^|[^A-Za-z0-9])([A-Za-z0-9]{6,12})$")
_PATCH_END = re.compile(r"[or][A-Za-z0-9]{6}")
_BRIEF = re.compile(r"\..+\.sw[a-z]|4913|\.#.+|#.+#|\.goutputstream-.+|\.nfs.+", re.DOTALL)


def check_name(tree: Tree, parent: Directory, name: bytes) -> str:
    """The path of a name about to be made.

    Raises:
        OSError: ENAMETOOLONG, EILSEQ (not UTF-8) or EINVAL (the store takes no such path).

    """
    if len(name) > NAME_MAX:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    try:
        text = name.decode()
    except UnicodeDecodeError:
        raise OSError(errno.EILSEQ, os.strerror(errno.EILSEQ)) from None
    above = tree.path(parent)
    path = f"{above}/{text}" if parent.parent is not None else f"/{text}"
    if len(path.encode()) > PATH_MAX_BYTES or path.count("/") > PATH_MAX_SEGMENTS:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    try:
        return paths.check(path)
    except InvalidRequest as refusal:
        raise OSError(errno.EINVAL, str(refusal)) from None


def is_showable(path: str) -> bool:
    """Whether every segment of a memory's path fits into a name."""
    return len(path) * 4 <= NAME_MAX or max(map(len, path.encode().split(b"/"))) <= NAME_MAX


def is_temporary(parent: Directory, name: bytes, flags: int, mode: int) -> bool:
    """Whether a file about to be made is a program's temporary one.

    By its name; or because it is made exclusively under a name with a random end, and either for its owner alone, as
    mkstemp does, or with a neighbour's name in it: rsync's `.notes.md.X7b2kQ`, patch's `notes.md.oX7b2kQ`, perl's
    `XXb2kQ9z`. A wrong guess costs a delay: such a file is saved when it stays.
    """
    text = name.decode(errors="replace")
    if is_scratch(text):
        return True
    end = _RANDOM_END.search(text) if flags & os.O_EXCL else None
    if end is None:
        return False
    before, token = text[: end.start(1)], end[1]
    is_private = not mode & 0o077
    if is_private and before.startswith(".") and len(token) == 6:
        return True
    if before.strip(".-_").encode() in parent.children:
        return (not token.islower() and not token.isdigit()) or _PATCH_END.fullmatch(token) is not None
    return is_private and (_looks_random(token) or (not before and token.startswith("XX") and len(token) == 8))


def _looks_random(token: str) -> bool:
    """Whether it is no word and no number, as far as one can tell."""
    kinds = (str.isupper, str.islower, str.isdigit)
    return sum(any(map(kind, token)) for kind in kinds) >= 2


def may_last(name: bytes) -> bool:
    """Whether a scratch file of this name is saved when it stays: not an editor's swap, lock or auto-save file."""
    return _BRIEF.fullmatch(name.decode(errors="replace")) is None


def listing(tree: Tree, directory: Directory, offset: int, size: int, *, plus: bool, learned: list[AnyNode]) -> bytes:
    """Up to `size` bytes of a READDIR or READDIRPLUS answer from `offset` on.

    learned: gets the nodes that the kernel did not know before.

    Offsets are cookies that grow with each name, so that a name removed while somebody reads on moves no other.
    """
    records: list[bytes] = []
    total = 0
    for node, number, cookie, kind, name in _entries(directory, offset):
        if plus:
            entry = _NO_LOOKUP if node is None else tree.entry_of(node)
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


def _entries(directory: Directory, offset: int) -> "itertools.chain[tuple[AnyNode | None, int, int, FileType, bytes]]":
    above = directory.parent or directory
    dots: list[tuple[AnyNode | None, int, int, FileType, bytes]] = [
        (None, directory.id, 1, FileType.DIRECTORY, b"."),
        (None, above.id, 2, FileType.DIRECTORY, b".."),
    ]
    children = (
        (node, node.id, node.cookie, FileType.DIRECTORY if type(node) is Directory else FileType.REGULAR, name)
        for name, node in list(directory.children.items())
        if node.cookie > offset
    )
    return itertools.chain(dots[offset:], children)
