"""What the kernel knows by number: the directories and files of one mount, and the tree they form.

A file's node stands for one text and its writers on this host. When somebody else changes the memory, the path gets a
new node, and the old one keeps the old text for those who have it open: so no read is ever half old and half new.
"""

import stat
import threading
import time
from collections.abc import Callable, Iterator
from enum import Enum
from typing import TypeAlias, cast

from app.mount.door.entries import Entry
from app.mount.fuse.kernel import protocol

FILE_MODE = 0o644
DIRECTORY_MODE = 0o755
READ_ONLY_MASK = ~0o222
FIRST_COOKIE = 3
"""Offsets 1 and 2 of a listing are `.` and `..`."""

_ATTR_AT = 40
"""Where the attributes begin in an `entry_out`."""


class Place(Enum):
    """How a node stands to its path."""

    LINKED = "linked"
    """It is what a lookup of its path finds."""
    REPLACED = "replaced"
    """Another node has taken the path, because the memory was changed or removed elsewhere. What a descriptor that
    was open for writing still brings belongs to the path, and is merged there."""
    REMOVED = "removed"
    """Removed or renamed over here: it lives as long as it is open, and is never saved."""


class Node:
    """What directories and files share."""

    __slots__ = (
        "atime_ns", "cookie", "ctime_ns", "gid", "id", "lookups", "mode", "mtime_ns", "name", "parent", "place",
        "reply", "uid",
    )  # fmt: skip

    def __init__(self, node_id: int, mode: int, mtime_ns: int, uid: int, gid: int) -> None:
        self.id = node_id
        self.parent: Directory | None = None
        self.name = b""
        self.place = Place.REMOVED  # until it is attached
        self.cookie = 0
        """Where a listing of the parent goes on after this node: grows with each name, never reused."""
        self.mode = mode
        """With the file type."""
        self.uid = uid
        self.gid = gid
        self.mtime_ns = mtime_ns
        self.ctime_ns = mtime_ns
        self.atime_ns = mtime_ns
        self.lookups = 0
        """References that the kernel holds. Counted in the reading thread only."""
        self.reply: bytes | None = None
        """The answer to a lookup, ready to send; None after a change."""


class Directory(Node):
    """A directory: of memories' paths, or made here and empty so far."""

    __slots__ = ("children", "made_here", "next_cookie", "subdirectories")

    def __init__(self, node_id: int, mtime_ns: int, uid: int, gid: int) -> None:
        super().__init__(node_id, stat.S_IFDIR | DIRECTORY_MODE, mtime_ns, uid, gid)
        self.children: dict[bytes, Directory | File] = {}
        """In the order of their cookies."""
        self.next_cookie = FIRST_COOKIE
        self.subdirectories = 0
        self.made_here = False
        """By mkdir: stays when the last memory below it is removed elsewhere."""


class File(Node):
    """A memory's text, or a file that is none (yet)."""

    __slots__ = (
        "aside",
        "base_text",
        "dirty",
        "edits",
        "entry",
        "handles",
        "kept",
        "merged",
        "parked",
        "refused",
        "saving",
        "scratch",
        "text",
        "writer",
        "writers",
    )  # fmt: skip

    def __init__(self, node_id: int, mtime_ns: int, uid: int, gid: int, entry: Entry | None = None) -> None:
        super().__init__(node_id, stat.S_IFREG | FILE_MODE, mtime_ns, uid, gid)
        self.entry = entry
        """What the text was based on; None: no memory has been made of it."""
        self.text: bytes | bytearray | None = None
        """None: the content of `entry`, which the engine has. A bytearray while it may be written."""
        self.base_text: bytes | None = None
        """The content of `entry` where the server may never have it, kept while somebody may build on it."""
        self.dirty = False
        """The text is not what `entry` says, or there is no entry."""
        self.edits = 0
        """Grows with every change to the text."""
        self.scratch = False
        """Lives in the mount alone."""
        self.parked: Entry | None = None
        """A memory that was renamed to this scratch name: still where it was on the server."""
        self.aside = False
        """The text has bytes that are none: its writer was told, and it is among the kept texts as it was. Others are
        still writing; what they save goes without those bytes."""
        self.kept: str | None = None
        """The ID of this text among the kept ones, as it was when it could not be saved."""
        self.refused: str | None = None
        """Why the text could not be saved, if nobody could be told; its bytes are kept."""
        self.handles = 0
        self.writers = 0
        """Handles, of all, that may write."""
        self.writer = 0
        """Thread ID of the last one who wrote; 0: the kernel itself."""
        self.saving = threading.Lock()
        """One save at a time. Taken before the tree's lock."""
        self.merged = False
        """Another node shows what this node's text was merged into: the next write here builds on that."""

    @property
    def size(self) -> int:
        """Bytes."""
        if self.text is not None:
            return len(self.text)
        return self.entry.size if self.entry else 0


AnyNode: TypeAlias = Directory | File


class Tree:
    """All nodes of one mount.

    Code that changes nodes holds `lock`; looking one up by number or name needs no lock.
    """

    def __init__(self, *, uid: int, gid: int, read_only: bool) -> None:
        self.lock = threading.Lock()
        self.uid = uid
        self.gid = gid
        self.read_only = read_only
        self.nodes: dict[int, AnyNode] = {}
        self.next_id = protocol.ROOT_ID
        self.entry_valid = b""
        self.attr_valid = b""
        self.trust(3600.0)
        self.root = self.new_directory()
        self.root.place = Place.LINKED
        self.root.made_here = True
        self._unreferenced: list[tuple[float, AnyNode]] = []
        self.on_placed: Callable[[AnyNode], None] = lambda node: None
        """Called with the lock when a node got, changed or lost its place."""
        self.on_forgotten: Callable[[AnyNode], None] = lambda node: None
        """Called when the kernel has forgotten a node."""

    def trust(self, seconds: float) -> None:
        """How long the kernel may use names and attributes without asking, from now on."""
        self.entry_valid = protocol.entry_valid(seconds, seconds)
        self.attr_valid = protocol.attr_valid(seconds)
        for node in list(self.nodes.values()):
            node.reply = None

    # Nodes.

    def new_directory(self) -> Directory:
        """A directory without a place yet."""
        node = Directory(self._new_id(), time.time_ns(), self.uid, self.gid)
        self.nodes[node.id] = node
        return node

    def new_file(self, entry: Entry | None = None) -> File:
        """A file without a place yet."""
        node = File(self._new_id(), entry.mtime_ns if entry else time.time_ns(), self.uid, self.gid, entry)
        self.nodes[node.id] = node
        return node

    def _new_id(self) -> int:
        node_id = self.next_id
        self.next_id += 1
        return node_id

    def forget(self, node_id: int, count: int) -> None:
        """The kernel gives up `count` references."""
        node = self.nodes.get(node_id)
        if node is None:
            return
        node.lookups -= count
        if node.lookups <= 0:
            self.on_forgotten(node)
            if node.place is not Place.LINKED and node is not self.root:
                self.nodes.pop(node_id, None)

    def release(self, node: AnyNode) -> None:
        """The node lost its place: forget it unless the kernel knows it. With the lock."""
        # A lookup may just be on its way out with this node's number: it is dropped a good while later.
        now = time.monotonic()
        self._unreferenced.append((now, node))
        while self._unreferenced and self._unreferenced[0][0] < now - 10:
            _, old = self._unreferenced.pop(0)
            if old.lookups <= 0 and old.place is not Place.LINKED:
                self.nodes.pop(old.id, None)

    # Places.

    def path(self, node: Node) -> str:
        """The path in the store; `/` for the root."""
        parts = []
        while node.parent is not None:
            parts.append(node.name)
            node = node.parent
        return "/" + b"/".join(reversed(parts)).decode()

    def find(self, path: str) -> AnyNode | None:
        """What a lookup of the path finds."""
        node: AnyNode = self.root
        for name in path.encode().split(b"/")[1:]:
            child = node.children.get(name) if isinstance(node, Directory) else None
            if child is None:
                return None
            node = child
        return node

    def attach(self, parent: Directory, name: bytes, node: AnyNode) -> None:
        """Give the node a name that is free. With the lock."""
        node.parent, node.name, node.place = parent, name, Place.LINKED
        node.cookie = parent.next_cookie
        parent.next_cookie += 1
        parent.children[name] = node
        parent.subdirectories += type(node) is Directory
        self.touch(parent)
        self.on_placed(node)

    def detach(self, node: AnyNode, place: Place) -> None:
        """Take the node from its name; it still knows where it was. With the lock."""
        parent = node.parent
        if parent is not None and parent.children.get(node.name) is node:
            del parent.children[node.name]
            parent.subdirectories -= type(node) is Directory
            self.touch(parent)
        node.place = place
        node.reply = None
        self.on_placed(node)
        self.release(node)

    def move(self, node: AnyNode, parent: Directory, name: bytes) -> None:
        """Give the node another name that is free; the number stays. With the lock."""
        old = node.parent
        assert old is not None
        if old.children.get(node.name) is node:
            del old.children[node.name]
            old.subdirectories -= type(node) is Directory
            self.touch(old)
        self.attach(parent, name, node)
        node.ctime_ns = time.time_ns()
        node.reply = None

    def replace(self, old: File, new: File) -> None:
        """Let `new` have the name of `old`, which those who have it open keep. With the lock."""
        parent, name = old.parent, old.name
        assert parent is not None
        if old.place is Place.LINKED:
            self.detach(old, Place.REPLACED)
        new.mode, new.uid, new.gid = old.mode, old.uid, old.gid
        self.attach(parent, name, new)
        new.reply = None

    def directory_for(self, path: str, made: list[Directory]) -> Directory | None:
        """The directory that holds the path, made with all above it where missing. With the lock.

        made: gets those that were missing. None: a file is in the way.
        """
        node: AnyNode = self.root
        for name in path.encode().split(b"/")[1:-1]:
            child = node.children.get(name) if isinstance(node, Directory) else None
            if child is None:
                child = self.new_directory()
                assert isinstance(node, Directory)
                self.attach(node, name, child)
                made.append(child)
            if not isinstance(child, Directory):
                return None
            node = child
        assert isinstance(node, Directory)
        return node

    def touch(self, node: Node) -> None:
        """Its content changed now. With the lock."""
        node.mtime_ns = node.ctime_ns = time.time_ns()
        node.reply = None

    # Answers.

    def entry_of(self, node: AnyNode) -> bytes:
        """The answer to a lookup of the node."""
        return node.reply or self._pack(node)

    def attributes_of(self, node: AnyNode) -> bytes:
        """The answer to GETATTR and SETATTR."""
        return self.attr_valid + (node.reply or self._pack(node))[_ATTR_AT:]

    def _pack(self, node: AnyNode) -> bytes:
        # An empty mark of its own is set first: a change that comes while this packs takes it away.
        while True:
            packing = cast("bytes", bytearray())
            node.reply = packing
            attributes = protocol.attributes(
                node.id,
                node.size if isinstance(node, File) else 0,
                node.mtime_ns,
                node.mode & READ_ONLY_MASK if self.read_only else node.mode,
                nlink=self._links(node),
                uid=node.uid,
                gid=node.gid,
                ctime_ns=node.ctime_ns,
                atime_ns=node.atime_ns,
            )
            packed = protocol.entry_out(node.id, attributes, self.entry_valid)
            if node.reply is packing:
                node.reply = packed
                return packed

    @staticmethod
    def _links(node: AnyNode) -> int:
        if isinstance(node, Directory):
            return 2 + node.subdirectories
        return 0 if node.place is Place.REMOVED else 1

    def files(self, top: Directory | None = None) -> Iterator[File]:
        """Every file with a place at or below a directory."""
        stack = [top or self.root]
        while stack:
            for child in list(stack.pop().children.values()):
                if isinstance(child, Directory):
                    stack.append(child)
                else:
                    yield child
