"""What a successor needs to go on where a worker died: which node is which, what is open, and every unsaved byte.

The kernel keeps naming nodes and open files by their numbers. So whatever it learns is written down before it is
told, and so is each write, as records appended to a piece of memory that outlives the process. A successor reads
them, takes everything that is saved from the engine, and answers on.
"""

import hashlib
import marshal
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from app.mount.door.entries import Entry
from app.mount.fuse.filesystem.coherence import Coherence
from app.mount.fuse.filesystem.handles import Handle, Handles
from app.mount.fuse.filesystem.nodes import AnyNode, Directory, File, Place, Tree

COMPACT_BYTES = 8 << 20
"""Rewritten when this much was appended, and it is mostly out of date."""
KNOWN = 1 << 40
"""References of a node that the kernel had before: how many is not written down, so it is never forgotten."""
ID_GAP = 1 << 20
"""New nodes keep this far from the old ones: the last may not have been written down."""

_LENGTH = struct.Struct("=I")

# The first field of a record.
_NODE, _FORGOTTEN, _TEXT, _WRITTEN, _OPENED, _CLOSED, _SHOWN = range(7)

Record = tuple[Any, ...]


class Keeper(Protocol):
    """Memory that outlives this process."""

    def save(self, state: bytes) -> None:
        """Replace what is kept."""

    def append(self, piece: bytes) -> None:
        """Add to what is kept, about as fast as a write to memory."""


def _pack(records: Iterable[Record]) -> bytes:
    body = marshal.dumps(list(records))
    return _LENGTH.pack(len(body)) + body


def _unpack(state: bytes) -> Iterator[Record]:
    """The records; a last piece that was cut off is left out."""
    at = 0
    while at + _LENGTH.size <= len(state):
        (length,) = _LENGTH.unpack_from(state, at)
        at += _LENGTH.size
        if at + length > len(state):
            return
        yield from marshal.loads(state[at : at + length])  # noqa: S302 - this process's predecessor wrote it
        at += length


def _of_entry(entry: Entry | None) -> Record | None:
    if entry is None:
        return None
    return entry.path, entry.memory_id, entry.version_id, entry.sha256, entry.size, entry.mtime_ns


def _to_entry(fields: Record | None) -> Entry | None:
    return None if fields is None else Entry(*fields)


def _of_node(node: AnyNode) -> Record:
    parent = node.parent.id if node.parent is not None else 0
    common = (
        _NODE, node.id, parent, node.name, node.place.value, node.mode, node.uid, node.gid, node.mtime_ns,
        node.ctime_ns, node.atime_ns,
    )  # fmt: skip
    if isinstance(node, Directory):
        return *common, node.made_here
    return (
        *common, _of_entry(node.entry), node.dirty, node.scratch, _of_entry(node.parked), node.aside, node.refused,
        node.merged, node.base_text, node.kept,
    )  # fmt: skip


def _with_text(node: AnyNode) -> list[Record]:
    # The text is looked at first: a writer that makes it an unsaved one after that writes it down itself.
    text = node.text if isinstance(node, File) and node.dirty else None
    if text is None:
        return [_of_node(node), *_shown(node)]
    return [_of_node(node), (_TEXT, node.id, bytes(text))]


def _shown(node: AnyNode) -> list[Record]:
    """What a reader of a replaced node was shown: more than its version's text."""
    if not isinstance(node, File) or node.place is not Place.REPLACED or node.dirty or node.text is None:
        return []
    return [(_SHOWN, node.id, bytes(node.text))]


def _of_handle(number: int, handle: Handle) -> Record:
    return (
        _OPENED, number, handle.file.id, handle.writable, handle.opener, handle.request, handle.held, handle.torn,
    )  # fmt: skip


class Survival:
    """Writes down what happens to one mount. Every method is cheap, and does nothing without a keeper.

    Called from any thread. What is written down is what is so at that moment, and one thread writes at a time: so
    the last that is written of a node is never older than what was written before, and nothing falls between what
    is rewritten and what follows it.
    """

    def __init__(self, tree: Tree, handles: Handles) -> None:
        self._tree = tree
        self._handles = handles
        self._keeper: Keeper | None = None
        self._appended = 0
        self._limit = COMPACT_BYTES
        self._lock = threading.Lock()
        """Taken after the tree's, by those who hold that."""

    def begin(self, keeper: Keeper) -> None:
        """Write everything down, and from now on what changes."""
        with self._lock:
            self._keeper = keeper
            self._compact(keeper)

    def end(self) -> None:
        """Write nothing more: there will be no successor."""
        with self._lock:
            self._keeper = None

    def state(self) -> bytes:
        """All that is to be known now."""
        with self._lock:
            return self._state()

    def _state(self) -> bytes:
        records: list[Record] = []
        for node in list(self._tree.nodes.values()):
            if self._matters(node):
                records += _with_text(node)
        records += [_of_handle(number, handle) for number, handle in list(self._handles.table.items())]
        return _pack(records)

    @staticmethod
    def _matters(node: AnyNode) -> bool:
        """The kernel knows it, or it is here alone."""
        if node.lookups > 0:
            return True
        return node.made_here if isinstance(node, Directory) else node.dirty or node.handles > 0

    def _append(self, record: Callable[[], Iterable[Record]]) -> None:
        if self._keeper is not None:
            with self._lock:
                self._write(list(record()))

    def _write(self, records: list[Record]) -> None:
        keeper = self._keeper
        if keeper is None or not records:
            return
        piece = _pack(records)
        keeper.append(piece)
        self._appended += len(piece)
        if self._appended > self._limit:
            self._compact(keeper)

    def _compact(self, keeper: Keeper) -> None:
        state = self._state()
        keeper.save(state)
        self._appended = 0
        self._limit = max(COMPACT_BYTES, 2 * len(state))

    def nodes(self, nodes: Iterable[AnyNode]) -> None:
        """These have changed, or the kernel is about to learn of them."""
        self._append(lambda: map(_of_node, nodes))

    def node(self, node: AnyNode) -> None:
        """It has changed, or the kernel is about to learn of it."""
        self._append(lambda: [_of_node(node)] if self._matters(node) else [])

    def file(self, file: File) -> None:
        """It is something else than it was: saved, a backup, a memory again; or its whole text is another."""
        self._append(lambda: _with_text(file) if self._matters(file) else [])

    def shown(self, file: File) -> None:
        """A replaced file, which nobody writes, shows more than its version's text."""
        self._append(lambda: _shown(file) if self._matters(file) else [])

    def written(self, file: File, offset: int, data: bytes) -> None:
        """A piece was written over a text that is known."""
        self._append(lambda: [(_WRITTEN, file.id, offset, data)])

    def forgotten(self, node: AnyNode) -> None:
        """The kernel has forgotten the node."""
        self._append(lambda: [] if self._matters(node) else [(_FORGOTTEN, node.id)])

    def opened(self, number: int, handle: Handle) -> None:
        """A handle is new, or has changed."""
        self._append(lambda: [_of_handle(number, handle)])

    def closed(self, number: int) -> None:
        """A handle is gone."""
        self._append(lambda: [(_CLOSED, number)])


def restore(state: bytes, tree: Tree, handles: Handles, coherence: Coherence) -> None:
    """Make the nodes and handles of an earlier worker again, before the engine's view is loaded over them."""
    nodes, texts, shown, opened = _replay(state)
    nodes.pop(tree.root.id, None)
    with tree.lock:
        made: dict[int, AnyNode] = {number: _make(tree, number, fields) for number, fields in nodes.items()}
        tree.nodes.update(made)
        tree.next_id = max(tree.nodes) + ID_GAP
        for number, fields in nodes.items():
            _place(tree, made[number], fields)
        for number, node in made.items():
            if isinstance(node, File):
                _fill(node, texts.get(number), shown.get(number), coherence)
        for number, (node_id, writable, opener, request, held, torn) in opened.items():
            file = tree.nodes.get(node_id)
            if isinstance(file, File):
                handle = Handle(file, writable=writable, opener=opener, request=request)
                handle.unsaved = writable and (file.dirty or bool(held))
                handle.held, handle.torn = held, torn
                handles.adopt(number, handle)


def _replay(state: bytes) -> tuple[dict[int, Record], dict[int, bytearray], dict[int, bytes], dict[int, Record]]:
    nodes: dict[int, Record] = {}
    texts: dict[int, bytearray] = {}
    shown: dict[int, bytes] = {}
    opened: dict[int, Record] = {}
    for kind, number, *fields in _unpack(state):
        if kind == _NODE:
            nodes[number] = tuple(fields)
        elif kind == _FORGOTTEN:
            nodes.pop(number, None)
        elif kind == _TEXT:
            texts[number] = bytearray(fields[0])
            shown.pop(number, None)
        elif kind == _SHOWN:
            shown[number] = fields[0]
        elif kind == _WRITTEN:
            offset, data = fields
            text = texts.setdefault(number, bytearray())
            text.extend(bytes(max(0, offset - len(text))))
            text[offset : offset + len(data)] = data
            shown.pop(number, None)
        elif kind == _OPENED:
            opened[number] = tuple(fields)
        else:
            opened.pop(number, None)
    return nodes, texts, shown, opened


def _make(tree: Tree, number: int, fields: Record) -> AnyNode:
    rest = fields[9:]
    if len(rest) == 1:
        directory = Directory(number, 0, tree.uid, tree.gid)
        (directory.made_here,) = rest
        return directory
    file = File(number, 0, tree.uid, tree.gid)
    entry, file.dirty, file.scratch, parked, file.aside, file.refused, file.merged, file.base_text, file.kept = rest
    file.entry, file.parked = _to_entry(entry), _to_entry(parked)
    return file


def _place(tree: Tree, node: AnyNode, fields: Record) -> None:
    parent_id, name, place = fields[:3]
    parent = tree.nodes.get(parent_id)
    if isinstance(parent, Directory):
        node.parent, node.name, node.place = parent, name, Place(place)
        if node.place is Place.LINKED:
            tree.attach(parent, name, node)
    node.lookups = KNOWN
    node.mode, node.uid, node.gid, node.mtime_ns, node.ctime_ns, node.atime_ns = fields[3:9]


def _fill(file: File, text: bytearray | None, shown: bytes | None, coherence: Coherence) -> None:
    if file.dirty and text is None and file.entry is not None:
        file.dirty = False  # the first write to it was in hand, and will be sent again
    if file.dirty:
        file.text, file.edits = text if text is not None else bytearray(), 1
    elif shown is not None and file.place is Place.REPLACED:
        file.text, file.edits = shown, 1
    if file.parked is not None:
        coherence.parked[file.parked.path] = file


def settle_restored(tree: Tree, get: Callable[[str], Entry | None]) -> None:
    """Find the unsaved texts which the engine had taken before that could be written down.

    get: the engine's entry at a path.
    """
    with tree.lock:
        for file in list(tree.files()):
            entry = get(tree.path(file)) if file.dirty and not file.scratch else None
            if entry is not None and file.text is not None:
                file.dirty = entry.sha256 != hashlib.sha256(file.text).hexdigest()
                if not file.dirty:
                    file.entry = entry
