"""Names: which may be made, and which are those of programs' temporary files."""

import errno
import os
import re
import unicodedata

from app.contract import paths
from app.contract.errors import InvalidRequest
from app.contract.limits import PATH_MAX_BYTES, PATH_MAX_SEGMENTS
from app.mount.fuse.filesystem.nodes import Directory, Tree
from app.mount.sync.scratch import is_scratch

NAME_MAX = 255
"""Bytes of one name, as on any Linux filesystem."""

_RANDOM_END = re.compile(r"(?:^|[^A-Za-z0-9])([A-Za-z0-9]{6,12})$")
_PATCH_END = re.compile(r"[or][A-Za-z0-9]{6}")
_BRIEF = re.compile(r"\..+\.sw[a-z]|4913|\.#.+|#.+#|\.goutputstream-.+|\.nfs.+", re.DOTALL)


def composed(name: bytes) -> bytes:
    """The name as memories spell it: composed (NFC), as an import composes it. What is not UTF-8 stays as it is."""
    if name.isascii():
        return name
    try:
        return unicodedata.normalize("NFC", name.decode()).encode()
    except UnicodeDecodeError:
        return name


def check_name(tree: Tree, parent: Directory, name: bytes) -> str:
    """The path of a name about to be made, which is `composed`.

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
    """Whether every segment of a path can be a name: one that can't would end the listing it is in."""
    try:
        names = path.encode().split(b"/")
    except UnicodeEncodeError:
        return False
    return (
        names[0] == b""
        and len(names) > 1
        and all(0 < len(name) <= NAME_MAX for name in names[1:])
        and ("\0" not in path and b"." not in names and b".." not in names)
    )


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
