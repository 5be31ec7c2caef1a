"""Opening and closing files, and what a close saves (docs/mount.md, "When a file is saved")."""

import errno
import os

from app.mount.fuse.filesystem.answering import Work, failure, find_directory, find_file, later
from app.mount.fuse.filesystem.directories import Directories
from app.mount.fuse.filesystem.handles import Handle, Handles, ends_the_edit
from app.mount.fuse.filesystem.naming import composed
from app.mount.fuse.filesystem.nodes import File, Place
from app.mount.fuse.filesystem.scratch_files import ScratchFiles
from app.mount.fuse.filesystem.survival import Survival
from app.mount.fuse.filesystem.texts import Texts
from app.mount.fuse.kernel import protocol
from app.mount.fuse.kernel.protocol import Feature, OpenFlag
from app.mount.fuse.kernel.requests import Reply, Request
from app.mount.sync.errors import Offline, Refused

_OPEN = protocol.OPEN_IN.unpack_from


class Opening:
    """CREATE, OPEN, FLUSH, FSYNC and RELEASE of one mount."""

    def __init__(
        self, handles: Handles, texts: Texts, directories: Directories, scratch_files: ScratchFiles, survival: Survival
    ) -> None:
        self.handles = handles
        self.texts = texts
        self.tree = texts.tree
        self.saver = texts.saver
        self.coherence = texts.coherence
        self.directories = directories
        self.scratch_files = scratch_files
        self.survival = survival
        self.features = Feature(0)
        """What was agreed with the kernel."""

    # Opening.

    def create(self, request: Request) -> Reply:
        """Make a file, unless there is one, and open it."""
        flags, mode, _, _ = protocol.CREATE_IN.unpack_from(request.body)
        parent, given = find_directory(self.tree, request.nodeid), request.body[protocol.CREATE_IN.size : -1]
        name = composed(given)
        file = parent.children.get(name)
        if file is None:
            file = self.directories.new_file(request, parent, name, mode, flags)
            self.directories.tell_spellings(parent, given, name)
        elif flags & os.O_EXCL and not request.resent:
            return errno.EEXIST
        elif not isinstance(file, File):
            return errno.EISDIR
        existing = file

        def open_it() -> Reply:
            opened = self._open(existing, flags, request)
            return self.directories.entry_out(existing, given) + opened

        return self._prepared(request, file, flags, open_it)

    def open(self, request: Request) -> Reply:
        """Open a file that is there."""
        if self.features & Feature.NO_OPEN_SUPPORT:
            return errno.ENOSYS  # the kernel never asks again: reading then needs no message at all
        flags, _ = _OPEN(request.body)
        file = find_file(self.tree, request.nodeid)
        if flags & os.O_ACCMODE == os.O_RDONLY and not flags & os.O_TRUNC:
            return self._open(file, flags, request)
        if self.tree.read_only:
            return errno.EROFS
        return self._prepared(request, file, flags, lambda: self._open(file, flags, request))

    def _prepared(self, request: Request, file: File, flags: int, open_it: Work) -> Reply:
        """Open for writing with the text in memory, so that no write has to wait for it."""
        if not file.scratch:
            self.coherence.check_takes_texts(is_new=False)
        if flags & os.O_TRUNC or flags & os.O_ACCMODE == os.O_RDONLY:
            return open_it()
        self._check_current(file)
        return self.texts.when_loaded(request, file, open_it)

    def _check_current(self, file: File) -> None:
        with self.tree.lock:
            if not self.saver.keep_base(file):
                raise failure(errno.ESTALE)  # the kernel looks the name up again

    def _open(self, file: File, flags: int, request: Request) -> bytes:
        writable = flags & os.O_ACCMODE != os.O_RDONLY
        answer = OpenFlag.KEEP_CACHE if writable else OpenFlag.KEEP_CACHE | OpenFlag.NOFLUSH
        with self.tree.lock:
            # The kernel may still name the node that had the path before.
            if (file.writers if writable else file.handles) == 0 and self.saver.catch_up(file):
                answer &= ~OpenFlag.KEEP_CACHE
            if flags & os.O_TRUNC:  # also with O_RDONLY, as every Linux file system does it
                self.texts.truncate(file, 0)
            elif not self.saver.keep_base(file):
                raise failure(errno.ESTALE)  # the kernel looks the name up again
            number = self.handles.open(file, writable=writable, request=request)
            self.survival.opened(number, self.handles.table[number])
        return protocol.open_out(number, answer)

    # Closing.

    def _handle(self, number: int) -> Handle:
        handle = self.handles.table.get(number)
        if handle is None:
            raise failure(errno.EBADF)
        return handle

    def flush(self, request: Request) -> Reply:
        """A descriptor is being closed: save if that ends an edit, so that close(2) can say what went wrong."""
        number, *_ = protocol.FLUSH_IN.unpack_from(request.body)
        handle = self._handle(number)
        file = handle.file
        if not (file.dirty or handle.held) or file.scratch or file.place is Place.REMOVED:
            return None
        if not ends_the_edit(handle, request.pid):
            return None
        return self._save_later(request, handle, durable=False)

    def fsync(self, request: Request) -> Reply:
        """Save, and wait until the server has it."""
        number, *_ = protocol.FSYNC_IN.unpack_from(request.body)
        handle = self._handle(number)
        file = handle.file
        if file.scratch or file.place is Place.REMOVED:
            return None
        return self._save_later(request, handle, durable=True)

    def _save_later(self, request: Request, handle: Handle, *, durable: bool) -> Reply:
        """durable: for fsync. A program that wrote nothing is not told of what others wrote."""
        is_told, handle.unsaved = handle.unsaved, False

        def save() -> Reply:
            try:
                self._save(handle, durable=durable)
            except (Refused, Offline):
                if is_told:
                    handle.unsaved = durable  # fsync told it; so will close, if it is still so
                    raise
            return None

        return later(request, save)

    def _save(self, handle: Handle, *, durable: bool) -> None:
        is_cut = bool(handle.held)
        if is_cut and not durable:
            self.saver.aside.put_held(handle)
        self.saver.save(handle.file, handle=handle, durable=durable, ends=not durable)
        if is_cut:
            raise Refused(errno.EILSEQ, "it ends within a character")

    def release(self, request: Request) -> Reply:
        """The last descriptor of an open file is closed: save what no flush has."""
        number, *_ = protocol.RELEASE_IN.unpack_from(request.body)
        with self.tree.lock:
            handle = self.handles.close(number)
            if handle is None:
                return None
            self.survival.closed(number)
            file = handle.file
            if file.writers == 0 and file.aside:
                self.saver.put_back_text(file)  # what is text of it is saved
            if file.handles == 0 and not file.dirty and file.entry is not None:
                file.text = file.base_text = None
        is_over = not file.dirty or file.writers > 0
        if (is_over and not handle.held) or file.place is Place.REMOVED:
            return None
        if file.scratch:
            self.scratch_files.keep_later(file)
            return None
        if file.refused is not None and not handle.unsaved:
            return None  # a refusal that was told at the close; asking again would not change it
        return self._save_later(request, handle, durable=False)
