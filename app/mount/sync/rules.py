"""The contract's rules for a write, and the server's refusals, as the errors a system call knows (docs/mount.md)."""

import errno
import os
import unicodedata

from app.client.failures import ApiError, Forbidden, Held, Missing, PathTaken, Unauthorized
from app.contract import content as contents
from app.contract import paths
from app.contract.errors import InvalidRequest
from app.contract.limits import CONTENT_MAX_BYTES, PATH_MAX_BYTES
from app.mount.sync.conflicts import SEGMENT_MAX_BYTES
from app.mount.sync.errors import Refused


def check_path(path: str) -> None:
    """Refuse a path that no memory can have, or that can't be shown.

    Raises:
        Refused: EILSEQ (not UTF-8), ENAMETOOLONG, EINVAL.

    """
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        raise Refused(errno.EILSEQ, f"the name {os.fsencode(path)!r} is not UTF-8") from None
    if len(encoded) > PATH_MAX_BYTES or any(len(part) > SEGMENT_MAX_BYTES for part in encoded.split(b"/")):
        raise Refused(
            errno.ENAMETOOLONG,
            f"{path}: a path has at most {PATH_MAX_BYTES:,} bytes, and a name {SEGMENT_MAX_BYTES}",
        )
    try:
        paths.check(path)
    except InvalidRequest as error:
        if not unicodedata.is_normalized("NFC", path):
            hint = unicodedata.normalize("NFC", path)
            raise Refused(errno.EINVAL, f"{error.message}, that is {hint!r}") from None
        raise Refused(errno.EINVAL, error.message) from None


def check_content(data: bytes) -> None:
    """Refuse bytes that no memory can hold.

    Raises:
        Refused: EFBIG, EILSEQ.

    """
    if len(data) > CONTENT_MAX_BYTES:
        raise Refused(errno.EFBIG, f"{len(data):,} bytes; a memory holds at most {CONTENT_MAX_BYTES:,}")
    try:
        contents.check(data.decode())
    except UnicodeDecodeError as error:
        raise Refused(errno.EILSEQ, f"not UTF-8 at byte {error.start:,}; a memory holds text only") from None


def refusal(error: ApiError, path: str, *, archived: bool) -> Refused:
    """What a writer is told when the server will not take a write that kept the rules above."""
    if archived:
        return Refused(errno.EROFS, "the store is archived")
    match error:
        case Held():
            return Refused(errno.EPERM, error.message)
        case Unauthorized() | Forbidden():
            return Refused(errno.EACCES, error.message)
        case Missing():
            return Refused(errno.ESTALE, "the store is gone")
        case PathTaken(conflicting_path=other) if other == path:
            return Refused(errno.EEXIST, f"{path} is taken")
        case PathTaken(conflicting_path=other) if other.startswith(path + "/"):
            return Refused(errno.EISDIR, f"{path} is a directory: there is {other}")
        case PathTaken(conflicting_path=other):
            return Refused(errno.ENOTDIR, f"{other} is a file, not a directory")
    if error.status == 413:
        return Refused(errno.EFBIG, error.message)
    if any(word in error.message.lower() for word in ("maximum", "at most", "limit", "quota", "exceed")):
        return Refused(errno.EDQUOT, error.message)
    return Refused(errno.EINVAL, error.message)
