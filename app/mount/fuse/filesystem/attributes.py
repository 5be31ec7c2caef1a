"""Attributes of files and directories, what the file system has room for, and a memory's IDs as extended attributes."""

import errno
import stat
import threading
import time

from app.mount.door.entries import Entry
from app.mount.fuse.filesystem.answering import find_node, later
from app.mount.fuse.filesystem.characters import fits
from app.mount.fuse.filesystem.handles import Handles
from app.mount.fuse.filesystem.naming import NAME_MAX
from app.mount.fuse.filesystem.nodes import AnyNode, File
from app.mount.fuse.filesystem.survival import Survival
from app.mount.fuse.filesystem.texts import Texts
from app.mount.fuse.kernel import protocol
from app.mount.fuse.kernel.protocol import SetAttr
from app.mount.fuse.kernel.requests import Reply, Request
from app.mount.sync.errors import Offline, Refused

STORE_MAX_BYTES = 100 << 20
STORE_MAX_FILES = 10_000
"""For statfs alone: what a store holds unless its server says otherwise. The server enforces its own limits."""
BLOCK_BYTES = 4096

XATTR_PREFIX = b"user.memstore."
AUTHOR = XATTR_PREFIX + b"author"
"""Not in listings: `cp -a` would ask the server for that of every file."""


class Attributes:
    """GETATTR, SETATTR, STATFS, GETXATTR and LISTXATTR of one mount."""

    def __init__(self, texts: Texts, handles: Handles, survival: Survival) -> None:
        self.texts = texts
        self.tree = texts.tree
        self.saver = texts.saver
        self.handles = handles
        self.survival = survival

    def getattr(self, request: Request) -> Reply:
        """What stat(2) shows."""
        node = self.tree.nodes.get(request.nodeid)
        return errno.ESTALE if node is None else self.tree.attributes_of(node)

    def setattr(self, request: Request) -> Reply:
        """Size, times, mode and owner. A size that is set through no open file is saved at once, or not set."""
        fields = protocol.SETATTR_IN.unpack_from(request.body)
        valid, _, number, size = fields[:4]
        node = find_node(self.tree, request.nodeid)
        if self.texts.coherence.archived and not (isinstance(node, File) and node.scratch):
            return errno.EROFS
        if not valid & SetAttr.SIZE:
            return self._set_plain(node, fields)
        if not isinstance(node, File):
            return errno.EISDIR
        handle = self.handles.table.get(number) if valid & SetAttr.FH else None
        if size > self.texts.limit(node):
            return errno.EFBIG

        def resize() -> Reply:
            if size and node.text is None and node.size:
                return self.texts.when_loaded(request, node, resize)
            if handle is None and node.writers and not node.scratch and _cuts_a_character(node.text, size):
                return errno.EILSEQ  # a program that has it open would be told, for what it did not do
            with self.tree.lock:
                take_back = self.texts.truncate(node, size)
                if handle is not None:
                    handle.unsaved = True
                    if node.text is not None and not node.scratch and not fits(node.text, size, size):
                        handle.torn = True
                        self.survival.opened(number, handle)
            if handle is not None or node.writers or node.scratch:
                return self._set_plain(node, fields)

            def save() -> Reply:
                try:
                    self.saver.save(node, keep=False)  # nobody has it open, so no close will
                except (Refused, Offline):
                    take_back()
                    raise
                return self._set_plain(node, fields)

            return later(request, save) if threading.current_thread() is reader else save()

        reader = threading.current_thread()
        return resize()

    def _set_plain(self, node: AnyNode, fields: tuple[int, ...]) -> bytes:
        """Times, mode and owner: kept for the life of the mount."""
        valid, _, _, _, _, atime, mtime, ctime, atime_ns, mtime_ns, ctime_ns, mode, _, uid, gid, _ = fields
        now = time.time_ns()
        with self.tree.lock:
            if valid & SetAttr.MODE:
                node.mode = stat.S_IFMT(node.mode) | mode & 0o7777
            if valid & SetAttr.UID:
                node.uid = uid
            if valid & SetAttr.GID:
                node.gid = gid
            if valid & (SetAttr.UID | SetAttr.GID) and not valid & SetAttr.MODE and isinstance(node, File):
                node.mode &= ~(stat.S_ISUID | stat.S_ISGID)
            if valid & SetAttr.ATIME:
                node.atime_ns = now if valid & SetAttr.ATIME_NOW else atime * 10**9 + atime_ns
            if valid & SetAttr.MTIME:
                node.mtime_ns = now if valid & SetAttr.MTIME_NOW else mtime * 10**9 + mtime_ns
            node.ctime_ns = ctime * 10**9 + ctime_ns if valid & SetAttr.CTIME else now
            node.reply = None
            self.survival.node(node)
        return self.tree.attributes_of(node)

    def statfs(self, request: Request) -> Reply:
        """Room by the limits of one store."""
        sizes = [file.size for file in self.tree.files() if not file.scratch]
        blocks = STORE_MAX_BYTES // BLOCK_BYTES
        return protocol.statfs_out(
            blocks=blocks,
            free=max(0, blocks - sum(-(-size // BLOCK_BYTES) for size in sizes)),
            files=STORE_MAX_FILES,
            files_free=max(0, STORE_MAX_FILES - len(sizes)),
            block_size=BLOCK_BYTES,
            name_max=NAME_MAX,
        )

    def getxattr(self, request: Request) -> Reply:
        """One of a memory's IDs; or who wrote it, which the server is asked for."""
        size, _ = protocol.GETXATTR_IN.unpack_from(request.body)
        name = request.body[protocol.GETXATTR_IN.size : -1]
        if not name.startswith(XATTR_PREFIX):
            return errno.ENOTSUP
        node = find_node(self.tree, request.nodeid)
        if name == AUTHOR and (entry := _memory(node)) is not None:

            def ask() -> Reply:
                author = self.texts.engine.author(entry)
                return errno.ENODATA if author is None else _sized(author.encode(), size)

            return later(request, ask)
        value = _extended(node).get(name)
        return errno.ENODATA if value is None else _sized(value, size)

    def listxattr(self, request: Request) -> Reply:
        """Which IDs there are."""
        size, _ = protocol.GETXATTR_IN.unpack_from(request.body)
        names = _extended(find_node(self.tree, request.nodeid))
        return _sized(b"".join(name + b"\0" for name in names), size)


def _cuts_a_character(text: bytes | bytearray | None, size: int) -> bool:
    return text is not None and size < len(text) and text[size] & 0xC0 == 0x80


def _memory(node: AnyNode) -> Entry | None:
    return (node.entry or node.parked) if isinstance(node, File) else None


def _extended(node: AnyNode) -> dict[bytes, bytes]:
    entry = _memory(node)
    if entry is None:
        return {}
    values = {b"id": entry.memory_id, b"version": entry.version_id, b"sha256": entry.sha256}
    return {XATTR_PREFIX + name: value.encode() for name, value in values.items() if value is not None}


def _sized(value: bytes, size: int) -> Reply:
    """An extended attribute's value, or its length when that is what was asked for."""
    if size == 0:
        return protocol.xattr_out(len(value))
    return value if len(value) <= size else errno.ERANGE
