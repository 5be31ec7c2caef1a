"""The texts of files: read, written and cut. What is refused changes nothing."""

import errno
import os
import stat
import time
from collections.abc import Callable

from app.contract.limits import CONTENT_MAX_BYTES
from app.mount.fuse.filesystem.answering import Work, find_file, later
from app.mount.fuse.filesystem.characters import can_be_text, fits, unfinished
from app.mount.fuse.filesystem.handles import Handle, Handles
from app.mount.fuse.filesystem.nodes import File
from app.mount.fuse.filesystem.saving import Saver
from app.mount.fuse.filesystem.survival import Survival
from app.mount.fuse.kernel import protocol
from app.mount.fuse.kernel.protocol import WriteFlag
from app.mount.fuse.kernel.requests import Reply, Request

SCRATCH_MAX_BYTES = 64 << 20
"""What a scratch file may hold: it is in memory."""

_READ = protocol.READ_IN.unpack_from
_WRITE = protocol.WRITE_IN.unpack_from


class Texts:
    """READ and WRITE of one mount, and what other requests do to texts."""

    def __init__(self, saver: Saver, handles: Handles, survival: Survival) -> None:
        self.saver = saver
        self.tree = saver.tree
        self.engine = saver.engine
        self.coherence = saver.coherence
        self.handles = handles
        self.survival = survival

    def when_loaded(self, request: Request, file: File, work: Work) -> Reply:
        """Do `work` when the file's text is in memory: now, or after it has been fetched."""
        if file.text is None:
            entry = file.entry
            text = self.saver.at_hand(file)
            if text is None:

                def fetch() -> Reply:
                    self.saver.load(file)
                    return work()

                return later(request, fetch)
            with self.tree.lock:
                if file.text is None and file.entry is entry:
                    file.text = text
        return work()

    def read(self, request: Request) -> Reply:
        """A piece of the text. What nobody is to write stays in the engine's cache alone, which is bounded."""
        _, offset, size, *_ = _READ(request.body)
        file = find_file(self.tree, request.nodeid)
        text = file.text
        if text is None:
            text = self.saver.at_hand(file)
            if text is None:
                return later(request, lambda: self.saver.fetched(file)[offset : offset + size])
        if offset == 0 and len(text) <= size:
            return bytes(text)
        return bytes(text[offset : offset + size])

    def write(self, request: Request) -> Reply:
        """Change a piece of the text, in memory. A piece that no memory could hold is refused, and nothing changes."""
        body = request.body
        number, offset, size, write_flags, _, flags, _ = _WRITE(body)
        handle = self.handles.table.get(number)
        file = handle.file if handle is not None else find_file(self.tree, request.nodeid)
        if file.text is None:
            # It was loaded when it was opened, but then saved for another handle, or by an earlier worker.
            return self.when_loaded(request, file, lambda: self.write(request))
        data = body[protocol.WRITE_IN.size : protocol.WRITE_IN.size + size]
        is_mapped = bool(write_flags & WriteFlag.CACHE)
        appends = bool(flags & os.O_APPEND) and not is_mapped
        with self.tree.lock:
            if flags & os.O_APPEND and file.writers == 1:
                self.saver.catch_up(file)
            text = file.text
            if not isinstance(text, bytearray):
                assert text is not None
                text = file.text = bytearray(text)
            held = handle.held if handle is not None and appends else b""
            if appends and offset != len(text) + len(held):
                if request.resent and (text + held).endswith(data):
                    return protocol.write_out(size)
                # The kernel's idea of the end is older than ours: what it cached at the wrong place must go.
                self.coherence.tell_text(file)
            if appends:
                offset, data = len(text), held + data
            if offset + len(data) > self.limit(file):
                return errno.EFBIG
            if not file.scratch and not is_mapped and not self._can_stand(handle, text, offset, data, appends=appends):
                return self._give_up_held(request, handle) if held and handle is not None else errno.EILSEQ
            if handle is not None and appends and not file.scratch:
                cut = unfinished(data)
                data, handle.held = data[: len(data) - cut], data[len(data) - cut :]
            if handle is not None:
                handle.unsaved = True
            if data:
                self._put(file, handle, offset, data)
            if handle is not None and (held or handle.held or handle.torn):
                self.survival.opened(number, handle)
            file.writer = 0 if is_mapped else request.pid
            if write_flags & WriteFlag.KILL_SUIDGID:
                file.mode &= ~(stat.S_ISUID | stat.S_ISGID)
        return protocol.write_out(size)

    def _can_stand(self, handle: Handle | None, text: bytearray, offset: int, data: bytes, *, appends: bool) -> bool:
        """Whether a text can have the bytes there, whatever is written later. Another's half character is no reason."""
        if offset != len(text):
            return can_be_text(data, begins_inside=True)
        cut = unfinished(text) if handle is not None and handle.torn and not appends else 0
        return can_be_text(bytes(text[len(text) - cut :]) + data, begins_inside=False)

    def _put(self, file: File, handle: Handle | None, offset: int, data: bytes) -> None:
        text = file.text
        assert isinstance(text, bytearray)
        was_whole = file.scratch or fits(text, offset, min(offset + len(data), len(text)))
        text.extend(bytes(max(0, offset - len(text))))
        text[offset : offset + len(data)] = data
        if handle is not None and was_whole and not file.scratch and not fits(text, offset, offset + len(data)):
            handle.torn = True
        was_dirty = file.dirty
        _edited(file)
        if was_dirty:
            self.survival.written(file, offset, data)
        else:
            self.survival.file(file)

    def _give_up_held(self, request: Request, handle: Handle) -> Reply:
        """The rest of a character did not come: its beginning is kept aside, and this call tells it."""

        def give_up() -> Reply:
            self.saver.aside.put_held(handle)
            return errno.EILSEQ

        return later(request, give_up)

    def truncate(self, file: File, size: int) -> Callable[[], None]:
        """Cut or lengthen the text, which is in memory unless it is cut to nothing. With the lock.

        Returns what undoes it if it can't be saved; to be called without the lock.
        """
        if file.writers == 0:
            self.saver.catch_up(file)
        self.saver.keep_base(file)
        before = file.text, file.dirty, file.refused, file.mtime_ns

        def take_back() -> None:
            with self.tree.lock:
                if file.dirty:  # else the path has another text by now
                    file.text, file.dirty, file.refused, file.mtime_ns = before
                    if file.handles == 0 and not file.dirty:
                        file.text = file.base_text = None
                    self._changed_back(file)

        if file.size == size:
            self.tree.touch(file)  # the kernel leaves it to us for a descriptor, whether the size changes or not
            return take_back
        text = bytearray() if file.text is None else bytearray(file.text)
        del text[size:]
        text.extend(bytes(size - len(text)))
        file.text = text
        _edited(file)
        self.survival.file(file)
        return take_back

    def limit(self, file: File) -> int:
        """Bytes that the file may hold."""
        return SCRATCH_MAX_BYTES if file.scratch else CONTENT_MAX_BYTES

    def _changed_back(self, file: File) -> None:
        file.edits += 1
        file.reply = None
        self.survival.file(file)
        self.coherence.tell_text(file)


def _edited(file: File) -> None:
    file.dirty = True
    file.edits += 1
    file.mtime_ns = file.ctime_ns = time.time_ns()
    file.reply = None
