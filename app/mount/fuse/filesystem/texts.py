"""The texts of files: read, written, cut, and put back when a write was refused."""

import errno
import os
import stat
import time
from collections.abc import Callable

from app.contract.limits import CONTENT_MAX_BYTES
from app.mount.fuse.filesystem.answering import Work, find_file, later
from app.mount.fuse.filesystem.handles import Handles
from app.mount.fuse.filesystem.nodes import File, Place
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
        """Change a piece of the text, in memory. A piece that no memory could hold is refused, and poisons the file."""
        body = request.body
        number, offset, size, write_flags, _, flags, _ = _WRITE(body)
        handle = self.handles.table.get(number)
        file = handle.file if handle is not None else find_file(self.tree, request.nodeid)
        if file.text is None:
            # It was loaded when it was opened, but then saved for another handle, or by an earlier worker.
            return self.when_loaded(request, file, lambda: self.write(request))
        data = body[protocol.WRITE_IN.size : protocol.WRITE_IN.size + size]
        with self.tree.lock:
            if flags & os.O_APPEND and file.writers == 1:
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
            if offset + size > self.limit(file):
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
            _edited(file)
            if was_dirty:
                self.survival.written(file, offset, data)
            else:
                self.survival.file(file)
        return protocol.write_out(size)

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

    def _poison(self, file: File, number: int) -> int:
        file.poison = number
        self.survival.node(file)
        return number

    def roll_back(self, file: File) -> None:
        """Nothing of a refused write stays. With the lock."""
        file.poison = 0
        if file.place is Place.REMOVED:
            return
        if file.entry is not None:
            file.text, file.dirty = None, False
        elif file.parked is not None and (text := self.engine.at_hand(file.parked)) is not None:
            file.text = text
        else:
            self.coherence.give_up(file)
            return
        self._changed_back(file)

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
