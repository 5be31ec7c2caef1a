"""The file system that shows one store through the kernel (docs/mount.md).

What is in memory is answered at once, in the thread that reads the kernel's requests. Whatever may wait for the
network goes to the session's pool and is answered from there, so that a slow server delays nobody else's call.

A request that is `resent` was in hand when an earlier worker died: it may have been carried out already.
"""

import errno
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from app.contract.limits import CONTENT_MAX_BYTES
from app.mount.engine import StoreEngine
from app.mount.fuse import protocol
from app.mount.fuse.coherence import Coherence, Housekeeper
from app.mount.fuse.device import Handler, Reply, Request, Session
from app.mount.fuse.directories import NAME_MAX, check_name, is_temporary, listing, may_last
from app.mount.fuse.handles import Handle, Handles, ends_the_edit
from app.mount.fuse.nodes import AnyNode, Directory, File, Place, Tree
from app.mount.fuse.protocol import Feature, Negotiated, Opcode, OpenFlag, SetAttr, Wishes, WriteFlag
from app.mount.fuse.renames import PARKED_SECONDS, Renames
from app.mount.fuse.saving import Saver
from app.mount.fuse.survival import Keeper, Survival, restore, settle_restored
from app.mount.refusals import Offline, Refused

log = logging.getLogger(__name__)

SCRATCH_MAX_BYTES = 64 << 20
"""What a scratch file may hold: it is in memory."""
STORE_MAX_BYTES = 100 << 20
STORE_MAX_FILES = 10_000
"""For statfs alone: what a store holds unless its server says otherwise. The server enforces its own limits."""
BLOCK_BYTES = 4096

XATTR_PREFIX = b"user.memstore."

_READ = protocol.READ_IN.unpack_from
_WRITE = protocol.WRITE_IN.unpack_from
_OPEN = protocol.OPEN_IN.unpack_from

Work: TypeAlias = Callable[[], Reply]


class FileSystem:
    """One store behind one FUSE mount. Give it to a `Session` as its operations.

    ```python
    filesystem = FileSystem(engine, read_only=False)  # sets the engine's callbacks: before it starts
    engine.start()
    session = Session(fd, filesystem, pool=pool, wishes=filesystem.wishes)
    filesystem.restore(kept)                              # only to take over from a worker that died
    filesystem.start(session, keeper)                     # fills the tree and starts the session
    …
    unsaved = filesystem.flush(timeout=10)                # everything closed so far is with the engine
    filesystem.stop()                                     # when the mount is gone
    ```
    """

    def __init__(self, engine: StoreEngine, *, read_only: bool, uid: int | None = None, gid: int | None = None) -> None:
        """uid, gid: whom the files seem to belong to; None: the user of this process."""
        self.engine = engine
        self.read_only = read_only
        self.wishes = Wishes(features=Wishes().features | (Feature.NO_OPEN_SUPPORT if read_only else Feature(0)))
        self.tree = Tree(
            uid=os.getuid() if uid is None else uid, gid=os.getgid() if gid is None else gid, read_only=read_only
        )
        self.handles = Handles()
        self.housekeeper = Housekeeper()
        self.coherence = Coherence(self.tree, engine, self.housekeeper)
        self.saver = Saver(self.tree, engine, self.coherence)
        self.renames = Renames(self.tree, self.saver, self.coherence)
        self._survival = Survival(self.tree, self.handles)
        self.tree.on_placed = self._survival.node
        self.tree.on_forgotten = self._survival.forgotten
        self.saver.on_saved = self._survival.file
        self._features = Feature(0)
        self._restored = False
        self._gone = threading.Event()
        engine.on_change = self.coherence.on_change
        engine.on_feed = self.coherence.on_feed
        reading: dict[int, Handler] = {
            Opcode.LOOKUP: self._lookup,
            Opcode.GETATTR: self._getattr,
            Opcode.OPEN: self._open,
            Opcode.READ: self._read,
            Opcode.OPENDIR: self._opendir,
            Opcode.READDIR: self._readdir,
            Opcode.READDIRPLUS: self._readdirplus,
            Opcode.RELEASEDIR: _done,
            Opcode.FSYNCDIR: _done,
            Opcode.STATFS: self._statfs,
            Opcode.GETXATTR: self._getxattr,
            Opcode.LISTXATTR: self._listxattr,
            Opcode.DESTROY: _done,
        }
        writing: dict[int, Handler] = {
            Opcode.SETATTR: self._setattr,
            Opcode.CREATE: self._create,
            Opcode.MKNOD: self._mknod,
            Opcode.MKDIR: self._mkdir,
            Opcode.UNLINK: self._unlink,
            Opcode.RMDIR: self._rmdir,
            Opcode.RENAME: self._rename,
            Opcode.RENAME2: self._rename2,
            Opcode.WRITE: self._write,
            Opcode.FLUSH: self._flush,
            Opcode.FSYNC: self._fsync,
            Opcode.RELEASE: self._release,
            Opcode.SYMLINK: _not_permitted,
            Opcode.LINK: _not_permitted,
            Opcode.SETXATTR: _not_supported,
            Opcode.REMOVEXATTR: _not_supported,
            Opcode.FALLOCATE: _not_supported,
            Opcode.TMPFILE: _not_supported,
        }
        if read_only:
            # Neither FLUSH nor FSYNC: the kernel then never asks again.
            del writing[Opcode.FLUSH], writing[Opcode.FSYNC]
            writing = {**dict.fromkeys(writing, _read_only), Opcode.RELEASE: self._release}
        self.handlers: Mapping[int, Handler] = {**reading, **writing}

    # Life.

    def start(self, session: Session, keeper: Keeper | None = None) -> None:
        """Fill the tree from the engine, which has started, and begin to answer the kernel.

        keeper: where to write down what a successor needs if this process dies; None: it could not go on.
        """
        self.coherence.session = session
        if self._restored:
            settle_restored(self.tree, self.engine.get)
        self.coherence.load()
        if keeper is not None:
            with self.tree.lock:
                self._survival.begin(keeper)
        self.housekeeper.start()
        self.housekeeper.soon(self.coherence.look_at_the_engine)
        session.start()
        if self._restored:
            # What changed meanwhile was not told to the kernel, and what was closed may not have been saved.
            self.housekeeper.soon(self.coherence.expire_names)
            threading.Thread(target=self._save_restored, name="fuse-resave", daemon=True).start()

    def _save_restored(self) -> None:
        """Save what was closed and had not got to the engine."""
        self.saver.save_all(open_files=False, scratch=False)
        for file in list(self.tree.files()):
            if file.scratch:
                self._keep_later(file)

    def state(self) -> bytes:
        """What `restore` needs, as it is now. A keeper has it at any moment, also after a crash."""
        with self.tree.lock:
            return self._survival.state()

    def restore(self, state: bytes) -> None:
        """Go on where an earlier worker with this state ended: before `start`.

        Nodes and open files keep their numbers, unsaved texts are what they were.
        """
        restore(state, self.tree, self.handles, self.coherence)
        self._restored = True

    def stop(self) -> None:
        """End what runs beside the session, which has ended."""
        self.housekeeper.stop()

    def flush(self, timeout: float | None, *, open_files: bool = False) -> list[str]:
        """Hand everything that was closed before this call to the engine; scratch files that may last too.

        The close of a file whose last descriptor was just closed may still be on its way: call `statvfs` on the
        mount first, which is answered after it.

        open_files: also what is still open for writing, as it is now.
        timeout: seconds, for saves that are under way. Returns the paths that the engine did not take.
        """
        failed = self.saver.save_all(open_files=open_files)
        if not self.saver.gate.wait_until_empty(timeout):
            failed += [self.tree.path(file) for file in self.tree.files() if file.dirty and not file.scratch]
        return sorted(set(failed))

    def status(self) -> dict[str, Any]:
        """What is in the mount only, ready for JSON.

        `refused`: [{path, reason}] texts that could not be saved and are kept here; `local`: paths of scratch
        files; `hidden`: memories that a local file or directory stands in the way of; `open_for_writing`: paths.
        """
        with self.tree.lock:
            files = [(self.tree.path(file), file) for file in self.tree.files()]
            return {
                "refused": [{"path": path, "reason": file.refused} for path, file in files if file.refused],
                "local": [path for path, file in files if file.scratch],
                "hidden": sorted(self.coherence.hidden),
                "open_for_writing": [path for path, file in files if file.writers],
            }

    def opened(self, negotiated: Negotiated) -> None:
        """See Operations."""
        self._features = negotiated.features

    def closed(self) -> None:
        """See Operations."""
        self._gone.set()

    def forget(self, nodeid: int, nlookup: int) -> None:
        """See Operations."""
        self.tree.forget(nodeid, nlookup)

    # Helpers.

    def _node(self, number: int) -> AnyNode:
        node = self.tree.nodes.get(number)
        if node is None:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return node

    def _file(self, number: int) -> File:
        node = self._node(number)
        if not isinstance(node, File):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        return node

    def _directory(self, number: int) -> Directory:
        node = self._node(number)
        if not isinstance(node, Directory):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if node.place is Place.REMOVED:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return node

    def _later(self, request: Request, work: Work) -> Reply:
        """Answer from the pool with what `work` returns, or refuses with."""

        def answer(request: Request) -> Reply:
            try:
                return work()
            except Refused as refusal:
                return refusal.errno
            except Offline:
                return errno.EIO

        return request.later(answer)

    def _with_text(self, request: Request, file: File, work: Work) -> Reply:
        """Do `work` when the file's text is in memory: now, or after it has been fetched."""
        if file.text is None:
            entry = file.entry
            text = self.engine.at_hand(entry) if entry is not None else b""
            if text is None:

                def fetch() -> Reply:
                    self.saver.load(file)
                    return work()

                return self._later(request, fetch)
            with self.tree.lock:
                if file.text is None and file.entry is entry:
                    file.text = text
        return work()

    def _entry_out(self, node: AnyNode) -> bytes:
        node.lookups += 1
        if node.lookups == 1:
            self._survival.node(node)
        return self.tree.entry_of(node)

    # Names and attributes.

    def _lookup(self, request: Request) -> Reply:
        parent = self.tree.nodes.get(request.nodeid)
        name = request.body[:-1]
        try:
            node = parent.children[name]  # type: ignore[union-attr]
        except KeyError:
            return self._no_such_name(name)
        except AttributeError:
            return errno.ESTALE if parent is None else errno.ENOTDIR
        node.lookups += 1
        if node.lookups == 1:
            self._survival.node(node)
        return node.reply or self.tree.entry_of(node)

    def _no_such_name(self, name: bytes) -> Reply:
        if len(name) > NAME_MAX:
            return errno.ENAMETOOLONG
        return protocol.negative_entry_out(self.tree.entry_valid)

    def _getattr(self, request: Request) -> Reply:
        node = self.tree.nodes.get(request.nodeid)
        return errno.ESTALE if node is None else self.tree.attributes_of(node)

    def _setattr(self, request: Request) -> Reply:
        fields = protocol.SETATTR_IN.unpack_from(request.body)
        valid, _, number, size = fields[:4]
        node = self._node(request.nodeid)
        if not valid & SetAttr.SIZE:
            return self._set_plain(node, fields)
        if not isinstance(node, File):
            return errno.EISDIR
        handle = self.handles.table.get(number) if valid & SetAttr.FH else None
        if size > self._limit(node):
            return errno.EFBIG

        def resize() -> Reply:
            if size and node.text is None and node.size:
                return self._with_text(request, node, resize)
            with self.tree.lock:
                self._truncate(node, size)
                if handle is not None:
                    handle.unsaved = True
            self._set_plain(node, fields)
            if handle is None and not node.writers and not node.scratch:
                return self._later(request, save) if threading.current_thread() is reader else save()
            return self.tree.attributes_of(node)

        def save() -> Reply:
            self.saver.save(node)  # nobody has it open, so no close will
            return self.tree.attributes_of(node)

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
            self._survival.node(node)
        return self.tree.attributes_of(node)

    def _statfs(self, request: Request) -> Reply:
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

    def _xattrs(self, node: AnyNode) -> dict[bytes, bytes]:
        entry = (node.entry or node.parked) if isinstance(node, File) else None
        if entry is None:
            return {}
        values = {b"id": entry.memory_id, b"version": entry.version_id, b"sha256": entry.sha256}
        return {XATTR_PREFIX + name: value.encode() for name, value in values.items() if value is not None}

    def _getxattr(self, request: Request) -> Reply:
        size, _ = protocol.GETXATTR_IN.unpack_from(request.body)
        name = request.body[protocol.GETXATTR_IN.size : -1]
        if not name.startswith(XATTR_PREFIX):
            return errno.ENOTSUP
        value = self._xattrs(self._node(request.nodeid)).get(name)
        return errno.ENODATA if value is None else _sized(value, size)

    def _listxattr(self, request: Request) -> Reply:
        size, _ = protocol.GETXATTR_IN.unpack_from(request.body)
        return _sized(b"".join(name + b"\0" for name in self._xattrs(self._node(request.nodeid))), size)

    # Directories.

    def _opendir(self, request: Request) -> Reply:
        if self._features & Feature.NO_OPENDIR_SUPPORT:
            return errno.ENOSYS  # the kernel never asks again, and caches listings
        return protocol.open_out(0, OpenFlag.CACHE_DIR | OpenFlag.KEEP_CACHE)

    def _readdir(self, request: Request) -> Reply:
        return self._list(request, plus=False)

    def _readdirplus(self, request: Request) -> Reply:
        return self._list(request, plus=True)

    def _list(self, request: Request, *, plus: bool) -> Reply:
        _, offset, size, *_ = _READ(request.body)
        directory = self._node(request.nodeid)
        if not isinstance(directory, Directory):
            return errno.ENOTDIR
        learned: list[AnyNode] = []
        answer = listing(self.tree, directory, offset, size, plus=plus, learned=learned)
        if learned:
            self._survival.nodes(learned)
        return answer

    def _mkdir(self, request: Request) -> Reply:
        mode, _ = protocol.MKDIR_IN.unpack_from(request.body)
        parent, name = self._directory(request.nodeid), request.body[protocol.MKDIR_IN.size : -1]
        path = check_name(self.tree, parent, name)

        def make() -> Reply:
            with self.tree.lock:
                done = parent.children.get(name)
                if done is not None:
                    return self._entry_out(done) if request.resent and isinstance(done, Directory) else errno.EEXIST
                directory = self.tree.new_directory()
                directory.made_here = True
                self._own(directory, request, mode, parent)
                self.tree.attach(parent, name, directory)
            return self._entry_out(directory)

        if path not in self.coherence.parked:
            return make()

        def settle_and_make() -> Reply:
            self.renames.settle_hidden(path)
            return make()

        return self._later(request, settle_and_make)

    def _rmdir(self, request: Request) -> Reply:
        parent, name = self._directory(request.nodeid), request.body[:-1]
        if request.resent and name not in parent.children:
            return None
        directory = self.renames.child(parent, name)
        if not isinstance(directory, Directory):
            return errno.ENOTDIR
        with self.tree.lock:
            if directory.children:
                return errno.ENOTEMPTY
            self.tree.detach(directory, Place.REMOVED)
        return None

    def _own(self, node: AnyNode, request: Request, mode: int, parent: Directory) -> None:
        """A new node belongs to its maker."""
        node.mode = stat.S_IFMT(node.mode) | mode & 0o7777
        node.uid, node.gid = request.uid, request.gid
        if parent.mode & stat.S_ISGID:
            node.gid = parent.gid
            if isinstance(node, Directory):
                node.mode |= stat.S_ISGID

    # Making and opening files.

    def _new_file(self, request: Request, parent: Directory, name: bytes, mode: int, flags: int) -> File:
        path = check_name(self.tree, parent, name)
        if self.coherence.archived and not is_temporary(parent, name, flags, mode):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        with self.tree.lock:
            hidden = self.coherence.parked.pop(path, None)
            file = self.tree.new_file()
            if hidden is not None:
                # The real name after a backup was made of it: the memory goes on here.
                file.entry, hidden.parked = hidden.parked, None
            file.text = bytearray()
            file.dirty = True
            file.edits = 1
            file.scratch = hidden is None and is_temporary(parent, name, flags, mode)
            self._own(file, request, mode, parent)
            self.tree.attach(parent, name, file)
        return file

    def _create(self, request: Request) -> Reply:
        flags, mode, _, _ = protocol.CREATE_IN.unpack_from(request.body)
        parent, name = self._directory(request.nodeid), request.body[protocol.CREATE_IN.size : -1]
        file = parent.children.get(name)
        if file is None:
            file = self._new_file(request, parent, name, mode, flags)
        elif flags & os.O_EXCL and not request.resent:
            return errno.EEXIST
        elif not isinstance(file, File):
            return errno.EISDIR
        existing = file

        def open_it() -> Reply:
            return self._entry_out(existing) + self._open_file(existing, flags, request)

        return self._prepared(request, file, flags, open_it)

    def _mknod(self, request: Request) -> Reply:
        mode, *_ = protocol.MKNOD_IN.unpack_from(request.body)
        parent, name = self._directory(request.nodeid), request.body[protocol.MKNOD_IN.size : -1]
        if not stat.S_ISREG(mode):
            return errno.EPERM
        done = parent.children.get(name)
        if done is not None:
            return self._entry_out(done) if request.resent and isinstance(done, File) else errno.EEXIST
        file = self._new_file(request, parent, name, mode, os.O_EXCL)
        if file.scratch:
            return self._entry_out(file)

        def save() -> Reply:
            self.saver.save(file)  # no close will
            return self._entry_out(file)

        return self._later(request, save)

    def _open(self, request: Request) -> Reply:
        if self._features & Feature.NO_OPEN_SUPPORT:
            return errno.ENOSYS  # the kernel never asks again: reading then needs no message at all
        flags, _ = _OPEN(request.body)
        file = self._file(request.nodeid)
        if flags & os.O_ACCMODE == os.O_RDONLY:
            number = self.handles.open(file, writable=False, request=request)
            self._survival.opened(number, self.handles.table[number])
            return protocol.open_out(number, OpenFlag.KEEP_CACHE | OpenFlag.NOFLUSH)
        if self.read_only:
            return errno.EROFS
        return self._prepared(request, file, flags, lambda: self._open_file(file, flags, request))

    def _prepared(self, request: Request, file: File, flags: int, open_it: Work) -> Reply:
        """Open for writing with the text in memory, so that no write has to wait for it."""
        if self.coherence.archived and not file.scratch:
            return errno.EROFS
        if flags & os.O_TRUNC or flags & os.O_ACCMODE == os.O_RDONLY:
            return open_it()
        return self._with_text(request, file, open_it)

    def _open_file(self, file: File, flags: int, request: Request) -> bytes:
        writable = flags & os.O_ACCMODE != os.O_RDONLY
        with self.tree.lock:
            if writable and flags & os.O_TRUNC:
                self._truncate(file, 0)
            number = self.handles.open(file, writable=writable, request=request)
            self._survival.opened(number, self.handles.table[number])
        return protocol.open_out(number, OpenFlag.KEEP_CACHE | (OpenFlag(0) if writable else OpenFlag.NOFLUSH))

    # Content.

    def _limit(self, file: File) -> int:
        return SCRATCH_MAX_BYTES if file.scratch else CONTENT_MAX_BYTES

    def _truncate(self, file: File, size: int) -> None:
        """Cut or lengthen the text, which is in memory unless it is cut to nothing. With the lock."""
        if file.merged:
            self.saver.catch_up(file)
        if file.size == size:
            self.tree.touch(file)  # the kernel leaves it to us for a descriptor, whether the size changes or not
            return
        text = bytearray() if file.text is None else bytearray(file.text)
        del text[size:]
        text.extend(bytes(size - len(text)))
        file.text = text
        self._edited(file)
        self._survival.text(file)

    def _edited(self, file: File) -> None:
        file.dirty = True
        file.edits += 1
        file.mtime_ns = file.ctime_ns = time.time_ns()
        file.reply = None

    def _read(self, request: Request) -> Reply:
        _, offset, size, *_ = _READ(request.body)
        file = self._file(request.nodeid)
        text = file.text
        if text is None:
            entry = file.entry
            text = self.engine.at_hand(entry) if entry is not None else b""
            if text is None:

                def fetch() -> Reply:
                    self.saver.load(file)
                    assert file.text is not None
                    return bytes(file.text[offset : offset + size])

                return self._later(request, fetch)
        if offset == 0 and len(text) <= size:
            return bytes(text)
        return bytes(text[offset : offset + size])

    def _write(self, request: Request) -> Reply:
        body = request.body
        number, offset, size, write_flags, _, flags, _ = _WRITE(body)
        handle = self.handles.table.get(number)
        file = handle.file if handle is not None else self._file(request.nodeid)
        if file.text is None:
            # It was loaded when it was opened, but then saved for another handle, or by an earlier worker.
            return self._with_text(request, file, lambda: self._write(request))
        data = body[protocol.WRITE_IN.size : protocol.WRITE_IN.size + size]
        with self.tree.lock:
            if file.merged:
                self.saver.catch_up(file)
            text = file.text
            if not isinstance(text, bytearray):
                assert text is not None
                text = file.text = bytearray(text)
            length = len(text)
            if flags & os.O_APPEND and not write_flags & WriteFlag.CACHE and offset != length:
                if request.resent and text.endswith(data):
                    return protocol.write_out(size)
                # The kernel's idea of the end is older than ours: what it cached at the wrong place must go.
                offset = length
                self.coherence.tell_text(file)
            if offset + size > self._limit(file):
                return self._poison(file, errno.EFBIG)
            if not file.scratch and offset == length and not _can_follow(text, data):
                return self._poison(file, errno.EILSEQ)
            if offset > length:
                text.extend(bytes(offset - length))
            text[offset : offset + size] = data
            file.writer = 0 if write_flags & WriteFlag.CACHE else request.pid
            if handle is not None:
                handle.unsaved = True
            if write_flags & WriteFlag.KILL_SUIDGID:
                file.mode &= ~(stat.S_ISUID | stat.S_ISGID)
            was_dirty = file.dirty
            self._edited(file)
            if was_dirty:
                self._survival.written(file, offset, data)
            else:
                self._survival.text(file)
        return protocol.write_out(size)

    def _poison(self, file: File, number: int) -> int:
        file.poison = number
        self._survival.node(file)
        return number

    def _handle(self, number: int) -> Handle:
        handle = self.handles.table.get(number)
        if handle is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return handle

    def _flush(self, request: Request) -> Reply:
        number, *_ = protocol.FLUSH_IN.unpack_from(request.body)
        handle = self._handle(number)
        file = handle.file
        if file.poison and handle.writable:
            return file.poison
        if not file.dirty or file.scratch or file.place is Place.REMOVED or not ends_the_edit(handle, request.pid):
            return None
        return self._save_later(request, handle, durable=False)

    def _fsync(self, request: Request) -> Reply:
        number, *_ = protocol.FSYNC_IN.unpack_from(request.body)
        handle = self._handle(number)
        file = handle.file
        if file.poison and handle.writable:
            return file.poison
        if file.scratch or file.place is Place.REMOVED:
            return None
        return self._save_later(request, handle, durable=True)

    def _save_later(self, request: Request, handle: Handle, *, durable: bool) -> Reply:
        handle.unsaved = False

        def save() -> Reply:
            self.saver.save(handle.file, durable=durable)
            return None

        return self._later(request, save)

    def _release(self, request: Request) -> Reply:
        number, *_ = protocol.RELEASE_IN.unpack_from(request.body)
        with self.tree.lock:
            handle = self.handles.close(number)
            if handle is None:
                return None
            self._survival.closed(number)
            file = handle.file
            if handle.writable and file.writers == 0 and file.poison:
                self._roll_back(file)
            if file.handles == 0 and not file.dirty and file.entry is not None:
                file.text = None
        if not file.dirty or file.writers or file.place is Place.REMOVED:
            return None
        if file.scratch:
            self._keep_later(file)
            return None
        if file.refused is not None and not handle.unsaved:
            return None  # a refusal that was told at the close; asking again would not change it
        return self._save_later(request, handle, durable=False)

    def _roll_back(self, file: File) -> None:
        """Nothing of a refused write stays. With the lock."""
        file.poison = 0
        if file.place is Place.REMOVED:
            return
        if file.entry is None:
            self.coherence.drop(file)
            return
        file.text, file.dirty = None, False
        file.edits += 1
        file.reply = None
        self._survival.node(file)
        self.coherence.tell_text(file)

    def _keep_later(self, file: File) -> None:
        """Save a scratch file that is still there after a while."""
        if not may_last(file.name):
            return
        edits = file.edits

        def keep() -> None:
            if file.scratch and file.edits == edits and file.place is Place.LINKED:
                threading.Thread(target=self._keep, args=(file,), name="fuse-keep", daemon=True).start()

        self.housekeeper.after(PARKED_SECONDS, keep)

    def _keep(self, file: File) -> None:
        try:
            self.saver.keep(file)
        except (Refused, Offline) as failure:
            log.info("a scratch file that stayed can't be saved: %s", failure)
        except Exception:
            log.exception("saving a scratch file that stayed failed")

    # Removing and renaming.

    def _unlink(self, request: Request) -> Reply:
        parent, name = self._directory(request.nodeid), request.body[:-1]
        if request.resent and name not in parent.children:
            return None
        file = self.renames.child(parent, name)
        if not isinstance(file, File):
            return errno.EISDIR
        if self.renames.is_local(file):
            with self.tree.lock:
                self.renames.unlink(file)
            return None

        def remove() -> Reply:
            self.renames.remove(parent, name)
            return None

        return self._later(request, remove)

    def _rename(self, request: Request) -> Reply:
        (new_parent,) = protocol.RENAME_IN.unpack_from(request.body)
        old, new = protocol.names(request.body, protocol.RENAME_IN.size)
        return self._renamed(request, old, new_parent, new, 0)

    def _rename2(self, request: Request) -> Reply:
        new_parent, flags, _ = protocol.RENAME2_IN.unpack_from(request.body)
        old, new = protocol.names(request.body, protocol.RENAME2_IN.size)
        return self._renamed(request, old, new_parent, new, flags)

    def _renamed(self, request: Request, name: bytes, new_parent_id: int, new_name: bytes, flags: int) -> Reply:
        parent, new_parent = self._directory(request.nodeid), self._directory(new_parent_id)
        if request.resent and name not in parent.children and new_name in new_parent.children:
            return None
        if not self.renames.check(parent, name, new_parent, new_name, flags):
            return None
        source = self.renames.child(parent, name)

        def rename() -> Reply:
            if isinstance(source, Directory):
                self.renames.rename_directory(parent, name, new_parent, new_name)
            else:
                self.renames.rename_file(parent, name, new_parent, new_name)
                if source.scratch:
                    self._keep_later(source)
            return None

        return self._later(request, rename)


def _sized(value: bytes, size: int) -> Reply:
    """An extended attribute's value, or its length when that is what was asked for."""
    if size == 0:
        return protocol.xattr_out(len(value))
    return value if len(value) <= size else errno.ERANGE


def _can_follow(text: bytearray, data: bytes) -> bool:
    """Whether the bytes can go on a text that is written in order; a character may be cut at the end."""
    if data.isascii() and not (text and text[-1] >= 0x80):
        return True
    tail = bytes(text[-3:])
    start = len(tail)
    for back in range(1, len(tail) + 1):
        byte = tail[-back]
        if byte < 0x80:
            break
        if byte >= 0xC0:
            # A character begins here: it is unfinished if it has more bytes than stand after it.
            if back < (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4):
                start = len(tail) - back
            break
    joined = tail[start:] + data
    try:
        joined.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data" and error.end == len(joined)
    return True


def _done(request: Request) -> Reply:
    return None


def _not_permitted(request: Request) -> Reply:
    return errno.EPERM


def _not_supported(request: Request) -> Reply:
    return errno.EOPNOTSUPP


def _read_only(request: Request) -> Reply:
    return errno.EROFS
