"""The kernel's FUSE protocol: its numbers and structures.

After `linux/fuse.h`, major version 7. Structures are the machine's own byte order without padding, as the kernel
reads and writes them. Nothing here does I/O.
"""

import struct
from enum import IntEnum, IntFlag

ROOT_ID = 1
"""The node ID of a mount's root directory."""
RESENT = 1 << 63
"""Set in the unique number of a request that the kernel delivers a second time."""


class Opcode(IntEnum):
    """What a request asks for."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SETUPMAPPING = 48
    REMOVEMAPPING = 49
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52
    COPY_FILE_RANGE_64 = 53


class Feature(IntFlag):
    """What INIT negotiates. A feature is on when both sides name it."""

    ASYNC_READ = 1 << 0
    ATOMIC_O_TRUNC = 1 << 3
    """OPEN carries O_TRUNC; no SETATTR of the size before it."""
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6
    """The umask is left to the filesystem."""
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    WRITEBACK_CACHE = 1 << 16
    NO_OPEN_SUPPORT = 1 << 17
    """ENOSYS to OPEN means: no file of this mount needs OPEN or RELEASE."""
    PARALLEL_DIROPS = 1 << 18
    HANDLE_KILLPRIV = 1 << 19
    ABORT_ERROR = 1 << 21
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    NO_OPENDIR_SUPPORT = 1 << 24
    EXPLICIT_INVAL_DATA = 1 << 25
    """Cached content is dropped only when the filesystem says so."""
    HANDLE_KILLPRIV_V2 = 1 << 28
    SETXATTR_EXT = 1 << 29
    INIT_EXT = 1 << 30
    HAS_EXPIRE_ONLY = 1 << 35
    HAS_RESEND = 1 << 39
    REQUEST_TIMEOUT = 1 << 42


class OpenFlag(IntFlag):
    """What an OPEN, OPENDIR or CREATE reply asks of the kernel."""

    DIRECT_IO = 1 << 0
    KEEP_CACHE = 1 << 1
    NONSEEKABLE = 1 << 2
    CACHE_DIR = 1 << 3
    STREAM = 1 << 4
    NOFLUSH = 1 << 5
    """No FLUSH when a descriptor of this open file is closed."""
    PARALLEL_DIRECT_WRITES = 1 << 6


class SetAttr(IntFlag):
    """Which fields of a SETATTR request count."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    FH = 1 << 6
    ATIME_NOW = 1 << 7
    MTIME_NOW = 1 << 8
    LOCK_OWNER = 1 << 9
    CTIME = 1 << 10
    KILL_SUIDGID = 1 << 11


class WriteFlag(IntFlag):
    """How the kernel came to send a WRITE."""

    CACHE = 1 << 0
    """Write-back of a mapped page: the request's pid is nobody's."""
    LOCK_OWNER = 1 << 1
    KILL_SUIDGID = 1 << 2


class Notify(IntEnum):
    """What a filesystem may tell the kernel unasked."""

    INVAL_INODE = 2
    INVAL_ENTRY = 3
    STORE = 4
    DELETE = 6
    RESEND = 7
    INC_EPOCH = 8


class FileType(IntEnum):
    """The type of a directory entry."""

    DIRECTORY = 4
    REGULAR = 8


FSYNC_DATA_ONLY = 1 << 0
GETATTR_FH = 1 << 0
EXPIRE_ONLY = 1 << 0
"""INVAL_ENTRY flag: the name is only asked for again; what is open below it stays as it is."""

HEADER_IN = struct.Struct("=IIQQIIIHH")
"""length, opcode, unique, node ID, uid, gid, pid, length of extensions (8-byte units), padding"""
HEADER_OUT = struct.Struct("=IiQ")
"""length, negative errno (or notification code), unique"""

# What stands before the payload of each request that has more than names. `unpack_from(request.body)` reads them.
FORGET_IN = struct.Struct("=Q")  # nlookup
BATCH_FORGET_IN = struct.Struct("=II")  # count, padding; then count times FORGET_ONE
FORGET_ONE = struct.Struct("=QQ")  # node ID, nlookup
GETATTR_IN = struct.Struct("=IIQ")  # flags, padding, fh
SETATTR_IN = struct.Struct("=IIQQQQQQIIIIIIII")
# valid, padding, fh, size, lock owner, atime, mtime, ctime, atime ns, mtime ns, ctime ns, mode, 0, uid, gid, 0
MKNOD_IN = struct.Struct("=IIII")  # mode, rdev, umask, padding; name
MKDIR_IN = struct.Struct("=II")  # mode, umask; name
RENAME_IN = struct.Struct("=Q")  # new parent's node ID; old name, new name
RENAME2_IN = struct.Struct("=QII")  # new parent's node ID, flags, padding; old name, new name
LINK_IN = struct.Struct("=Q")  # old node ID; name
OPEN_IN = struct.Struct("=II")  # flags, open flags
CREATE_IN = struct.Struct("=IIII")  # flags, mode, umask, open flags; name
READ_IN = struct.Struct("=QQIIQII")  # fh, offset, size, read flags, lock owner, file's flags, padding
WRITE_IN = struct.Struct("=QQIIQII")  # fh, offset, size, write flags, lock owner, file's flags, padding; data
RELEASE_IN = struct.Struct("=QIIQ")  # fh, flags, release flags, lock owner
FLUSH_IN = struct.Struct("=QIIQ")  # fh, unused, padding, lock owner
FSYNC_IN = struct.Struct("=QII")  # fh, fsync flags, padding
GETXATTR_IN = struct.Struct("=II")  # size, padding; name
SETXATTR_IN = struct.Struct("=II")  # size, flags; name, value
ACCESS_IN = struct.Struct("=II")  # mask, padding
FALLOCATE_IN = struct.Struct("=QQQII")  # fh, offset, length, mode, padding
INTERRUPT_IN = struct.Struct("=Q")  # unique of the request to interrupt
INIT_IN = struct.Struct("=IIIII")  # major, minor, max_readahead, flags, flags2

INIT_OUT = struct.Struct("=IIIIHHIIHHIIH22x")
# major, minor, max_readahead, flags, max_background, congestion threshold, max_write, time granularity (ns),
# max_pages, map alignment, flags2, stack depth, request timeout (seconds)
ATTR = struct.Struct("=QQQQQQIIIIIIIIII")
# ino, size, blocks, atime, mtime, ctime, their nanoseconds, mode, nlink, uid, gid, rdev, blksize, flags
OPEN_OUT = struct.Struct("=QIi")  # fh, open flags, backing ID
WRITE_OUT = struct.Struct("=II")  # size, padding
XATTR_OUT = struct.Struct("=II")  # size, padding
STATFS_OUT = struct.Struct("=QQQQQIIII24x")
# blocks, free, available, files, files free, block size, name length, fragment size, padding
DIRENT = struct.Struct("=QQII")  # ino, offset of the next, length of the name, type; name, padded to 8 bytes

_ENTRY_ID = struct.Struct("=QQ")  # node ID, generation
_ENTRY_VALID = struct.Struct("=QQII")  # entry s, attributes s, entry ns, attributes ns
_ATTR_VALID = struct.Struct("=QII")  # s, ns, padding

_INVAL_INODE = struct.Struct("=Qqq")
_INVAL_ENTRY = struct.Struct("=QII")
_DELETE = struct.Struct("=QQII")
_STORE = struct.Struct("=QQII")

NANOSECONDS = 1_000_000_000
BLOCK_BYTES = 512


def attributes(
    ino: int,
    size: int,
    mtime_ns: int,
    mode: int,
    *,
    nlink: int = 1,
    uid: int = 0,
    gid: int = 0,
    ctime_ns: int | None = None,
    atime_ns: int | None = None,
    block_size: int = 4096,
) -> bytes:
    """One file's attributes, 88 bytes; worth keeping as long as the file is the same.

    `mode` also holds the file type bits. A missing ctime or atime is the mtime.
    """
    mtime, mtime_part = divmod(mtime_ns, NANOSECONDS)
    ctime, ctime_part = (mtime, mtime_part) if ctime_ns is None else divmod(ctime_ns, NANOSECONDS)
    atime, atime_part = (mtime, mtime_part) if atime_ns is None else divmod(atime_ns, NANOSECONDS)
    blocks = -(-size // BLOCK_BYTES)
    return ATTR.pack(
        ino, size, blocks, atime, mtime, ctime, atime_part, mtime_part, ctime_part,
        mode, nlink, uid, gid, 0, block_size, 0,
    )  # fmt: skip


def entry_valid(entry_seconds: float, attr_seconds: float) -> bytes:
    """How long the kernel may trust a name and its attributes: made once, given to each `entry_out`."""
    entry_ns, attr_ns = int(entry_seconds * NANOSECONDS), int(attr_seconds * NANOSECONDS)
    return _ENTRY_VALID.pack(
        entry_ns // NANOSECONDS, attr_ns // NANOSECONDS, entry_ns % NANOSECONDS, attr_ns % NANOSECONDS
    )


def attr_valid(seconds: float) -> bytes:
    """How long the kernel may trust attributes: made once, given to each `attr_out`."""
    return _ATTR_VALID.pack(*divmod(int(seconds * NANOSECONDS), NANOSECONDS), 0)


def entry_out(node_id: int, attr: bytes, valid: bytes, generation: int = 0) -> bytes:
    """The answer to LOOKUP, MKDIR and MKNOD; node ID 0 says "no such name" for as long as `valid` says."""
    return _ENTRY_ID.pack(node_id, generation) + valid + attr


def not_to_be_trusted(entry: bytes) -> bytes:
    """An answer to LOOKUP, MKDIR or MKNOD whose name the kernel asks for again each time."""
    at = _ENTRY_ID.size
    return entry[:at] + bytes(_ENTRY_VALID.size) + entry[at + _ENTRY_VALID.size :]


def negative_entry_out(valid: bytes) -> bytes:
    """The answer to LOOKUP that lets the kernel remember that there is no such name."""
    return entry_out(0, bytes(ATTR.size), valid)


def attr_out(attr: bytes, valid: bytes) -> bytes:
    """The answer to GETATTR and SETATTR; `valid` from `attr_valid`."""
    return valid + attr


def open_out(fh: int, flags: int = 0) -> bytes:
    """The answer to OPEN and OPENDIR, and after an entry the second half of CREATE's. `flags` are of OpenFlag."""
    return OPEN_OUT.pack(fh, flags, 0)


def write_out(size: int) -> bytes:
    """The answer to WRITE: how many bytes were taken."""
    return WRITE_OUT.pack(size, 0)


def xattr_out(size: int) -> bytes:
    """The answer to GETXATTR and LISTXATTR of size 0: how many bytes the value has."""
    return XATTR_OUT.pack(size, 0)


def statfs_out(*, blocks: int, free: int, files: int, files_free: int, block_size: int, name_max: int) -> bytes:
    """The answer to STATFS; blocks of `block_size` bytes."""
    return STATFS_OUT.pack(blocks, free, free, files, files_free, block_size, name_max, block_size, 0)


def dirent(ino: int, next_offset: int, file_type: int, name: bytes) -> bytes:
    """One entry of a READDIR answer. `next_offset` is where a later READDIR goes on after this entry."""
    record = DIRENT.pack(ino, next_offset, len(name), file_type) + name
    return record + bytes(-len(record) % 8)


def direntplus(entry: bytes, ino: int, next_offset: int, file_type: int, name: bytes) -> bytes:
    """One entry of a READDIRPLUS answer; `entry` from `entry_out`. It counts as a lookup, save for `.` and `..`."""
    return entry + dirent(ino, next_offset, file_type, name)


def names(body: bytes, start: int = 0) -> list[bytes]:
    """The NUL-ended names from `start` to the end of a request's body."""
    return body[start:].split(b"\0")[:-1]


def inval_inode(node_id: int, offset: int = 0, length: int = 0) -> bytes:
    """Drop a file's attributes and cached content; a negative offset drops attributes only, length 0 is to the end."""
    return _INVAL_INODE.pack(node_id, offset, length)


def inval_entry(parent_id: int, name: bytes, flags: int = 0) -> bytes:
    """Forget what a name stands for; the next lookup asks."""
    return _INVAL_ENTRY.pack(parent_id, len(name), flags) + name + b"\0"


def delete(parent_id: int, child_id: int, name: bytes) -> bytes:
    """Say that a name is gone, as if it had been removed here."""
    return _DELETE.pack(parent_id, child_id, len(name), 0) + name + b"\0"


def store(node_id: int, data: bytes, offset: int = 0) -> bytes:
    """Put content into the kernel's cache."""
    return _STORE.pack(node_id, offset, len(data), 0) + data
